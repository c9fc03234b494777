"""REAL_READERS: the modules and functions that compute on real values, on the CPU, whatever they are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor, nn

from bpu_fx_fusion import register_leaf_module, wrap

from ..qtensor import QTensor

__all__ = ["REAL_READERS", "real", "real_function", "real_module"]

REAL_READERS: set[Any] = set()
"""Types of modules, and functions. ``prepare_qat_fx`` puts a DeQuantStub before each quantized tensor they take."""

_F = TypeVar("_F", bound=Callable[..., Any])
_M = TypeVar("_M", bound=type[nn.Module])


def real_module(module_type: _M) -> _M:
    """Declare a module type; tracing keeps its call as one node."""
    REAL_READERS.add(module_type)
    return register_leaf_module(module_type)


def real_function(function: _F) -> _F:
    """Declare a function; tracing keeps its call as one node."""
    recorded = wrap(function)
    REAL_READERS.add(recorded)
    return recorded


def real(x: Tensor) -> Tensor:
    """Return the real values of a tensor, quantized or not, as floating point without a gradient."""
    values = (x.dequantize() if isinstance(x, QTensor) else x).detach()
    return values if values.is_floating_point() else values.float()

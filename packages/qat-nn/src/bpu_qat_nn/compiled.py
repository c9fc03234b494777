"""What ``torch.compile`` sees of our models; imported by it alone.

Of a converted model it sees the plain module, made when needed. A model under calibration or training runs as it is:
its observers change state and its scales are read while it runs, so there is no graph to compile.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from .derived import Derived
from .errors import CaptureError
from .plain import plain_module

if TYPE_CHECKING:
    from .graph_module import ObservedGraphModule, QuantizedGraphModule

__all__ = ["compiled_call", "uncompiled_call"]

Call = Callable[["QuantizedGraphModule", Any, Mapping[str, Any]], Any]
_Uncompiled = Callable[["ObservedGraphModule", Any, Mapping[str, Any]], Any]

_PLAIN: weakref.WeakKeyDictionary[QuantizedGraphModule, Derived] = weakref.WeakKeyDictionary()


def _compiled_call(quantized: QuantizedGraphModule, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Call the plain module of a model, for inputs of these shapes and the weights and scales that it has now."""
    if kwargs:
        raise CaptureError(f"give inputs by position to a compiled model, got {', '.join(kwargs)} by name")
    shapes = tree_map(lambda x: (x.shape, x.dtype, x.device) if isinstance(x, Tensor) else x, args)
    state = [*quantized.parameters(), *quantized.buffers()]
    kept = _PLAIN.setdefault(quantized, Derived())
    return kept.get(state, lambda: plain_module(quantized, *args), repr(shapes), quantized.code)(*args)


_disable: Any = torch.compiler.disable
compiled_call: Call = _disable(_compiled_call, recursive=False)
"""Not compiled itself, since it computes parameters from weights; the plain module that it calls is."""


def _uncompiled_call(observed: ObservedGraphModule, args: Any, kwargs: Mapping[str, Any]) -> Any:
    return observed(*args, **kwargs)


uncompiled_call: _Uncompiled = _disable(_uncompiled_call)
"""Calls a model under calibration or training; the code around it is compiled, and the compiler stops before it."""

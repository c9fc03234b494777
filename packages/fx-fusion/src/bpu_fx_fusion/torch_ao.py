"""Module types of torch's own quantization that users' models contain, recognised by name.

torch.ao is leaving torch, so nothing of it is imported; a class is known by where it was defined.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

_FLOAT_FUNCTIONAL = ("torch.ao.nn.quantized.modules.functional_modules", "FloatFunctional")
_STUBS = {
    ("torch.ao.quantization.stubs", "QuantStub"),
    ("torch.ao.quantization.stubs", "DeQuantStub"),
}


def is_float_functional(module: nn.Module) -> bool:
    """Tell whether a module is torch's FloatFunctional (`torch.nn.quantized.FloatFunctional`)."""
    return _defined_as(type(module)) == _FLOAT_FUNCTIONAL


def is_stub(module: nn.Module) -> bool:
    """Tell whether a module is torch's QuantStub or DeQuantStub, which tracing keeps as one node."""
    return _defined_as(type(module)) in _STUBS


def float_functional_method(function: Callable[..., Any]) -> str | None:
    """Return the method's name if a function is a method of torch's FloatFunctional, such as `FloatFunctional.add`."""
    module, qualified_name = _defined_as(function)
    owner, _, method = qualified_name.rpartition(".")
    return method if (module, owner) == _FLOAT_FUNCTIONAL else None


def _defined_as(thing: Any) -> tuple[str, str]:
    return getattr(thing, "__module__", None) or "", getattr(thing, "__qualname__", "")

"""Module types of torch's own quantization that users' models contain, recognised by name.

torch.ao is leaving torch, so nothing of it is imported; a class is known by where it was defined.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

_CLASSES = {
    ("torch.ao.quantization.stubs", "QuantStub"): "QuantStub",
    ("torch.ao.quantization.stubs", "DeQuantStub"): "DeQuantStub",
    ("torch.ao.nn.quantized.modules.functional_modules", "FloatFunctional"): "FloatFunctional",
}
"""Where a class was defined -> what it is called."""


def torch_ao_class(module_type: type[nn.Module]) -> str | None:
    """Return the name of a class if it is one of torch's own quantization."""
    return _CLASSES.get(_defined_as(module_type))


def is_float_functional(module: nn.Module) -> bool:
    """Tell whether a module is torch's FloatFunctional (`torch.nn.quantized.FloatFunctional`)."""
    return torch_ao_class(type(module)) == "FloatFunctional"


def is_stub(module: nn.Module) -> bool:
    """Tell whether a module is torch's QuantStub or DeQuantStub, which tracing keeps as one node."""
    return torch_ao_class(type(module)) in ("QuantStub", "DeQuantStub")


def float_functional_method(function: Callable[..., Any]) -> str | None:
    """Return the method's name if a function is a method of torch's FloatFunctional, such as `FloatFunctional.add`."""
    module, qualified_name = _defined_as(function)
    owner, _, method = qualified_name.rpartition(".")
    return method if _CLASSES.get((module, owner)) == "FloatFunctional" else None


def _defined_as(thing: Any) -> tuple[str, str]:
    return getattr(thing, "__module__", None) or "", getattr(thing, "__qualname__", "")

"""torch.ao's stubs and FloatFunctional, which users' models contain: known by name, so nothing of it is imported."""

from __future__ import annotations

from torch import nn

from bpu_fx_fusion import FloatFunctional

from .ops.stubs import DeQuantStub, QuantStub

__all__ = ["own_type"]

_OWN: dict[tuple[str, str], type[nn.Module]] = {
    ("torch.ao.quantization.stubs", "QuantStub"): QuantStub,
    ("torch.ao.quantization.stubs", "DeQuantStub"): DeQuantStub,
    ("torch.ao.nn.quantized.modules.functional_modules", "FloatFunctional"): FloatFunctional,
}
"""(module, name) of a class of torch.ao -> the class of ours that stands for it."""


def own_type(module_type: type[nn.Module]) -> type[nn.Module]:
    """Return our class for one of torch.ao's, every other type as it is."""
    return _OWN.get((module_type.__module__, module_type.__qualname__), module_type)

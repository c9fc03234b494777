"""torch.ao's stubs and FloatFunctional, which users' models contain: known by name, so nothing of it is imported."""

from __future__ import annotations

from torch import nn

from bpu_fx_fusion import FloatFunctional, torch_ao_class

from .ops.stubs import DeQuantStub, QuantStub

__all__ = ["own_type"]

_OWN: dict[str | None, type[nn.Module]] = {
    "QuantStub": QuantStub,
    "DeQuantStub": DeQuantStub,
    "FloatFunctional": FloatFunctional,
}
"""Class of torch.ao -> the class of ours that stands for it."""


def own_type(module_type: type[nn.Module]) -> type[nn.Module]:
    """Return our class for one of torch.ao's, every other type as it is."""
    return _OWN.get(torch_ao_class(module_type), module_type)

"""The places of a model: the modules that compute, each once, with the path that names it at every stage."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from bpu_fx_fusion import FloatFunctional, FusedModule

from ..flow import row_of
from ..op import Operator
from ..ops.functional import QATFloatFunctional, QFunctional
from ..torch_ao import own_type

__all__ = ["is_functional", "is_place", "kind_of", "places"]


def places(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield (path, module) in the order of definition: operators, fused or not, and leaves.

    Of an operator that is made of others, its parts follow it. Observers and fake quantizers are no places.
    """
    met: set[int] = set()

    def visit(path: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        if id(module) in met:
            return
        met.add(id(module))
        place = is_place(module)
        if place:
            yield path, module
        for name, child in module.named_children():
            if not place or (isinstance(module, Operator) and isinstance(child, Operator)):
                yield from visit(f"{path}.{name}" if path else name, child)

    return visit("", model)


def is_place(module: nn.Module) -> bool:
    """Whether a module computes itself, rather than by other modules that are looked at one by one."""
    return isinstance(module, (Operator, FusedModule)) or row_of(module) is not None or not module._modules


def is_functional(module: nn.Module) -> bool:
    """Whether a module is a FloatFunctional at any stage: called by its methods."""
    return own_type(type(module)) in (FloatFunctional, QATFloatFunctional, QFunctional)


def kind_of(module: nn.Module) -> str:
    """Return what a module is called where it is printed, e.g. ``ConvReLU2d`` at every stage."""
    return str(module._get_name())  # type: ignore[no-untyped-call]

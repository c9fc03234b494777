"""``set_preserve_qat_mode``: modules that stay under QAT in a converted model, and compute the same integers there."""

from __future__ import annotations

import copy

from torch import nn

from bpu_fx_fusion import FusedModule
from bpu_qconfig import FakeQuantize, FakeQuantState, set_fake_quantize

from .errors import ArgumentError
from .qat_module import QATModule

__all__ = ["carry_mark", "frozen", "is_preserved", "preserved_paths", "set_preserve_qat_mode"]


def set_preserve_qat_mode(
    model: nn.Module, prefixes: tuple[str, ...] = (), types: tuple[type[nn.Module], ...] = (), value: bool = True
) -> None:
    """Mark modules to stay as they are under QAT when the model is converted, or no longer so.

    In the converted model they are in VALIDATION state, so its integers are the same as without. It is a means of
    looking closer: a model with such modules has no Program. Of what is fused into one operator the layer with weights
    decides.

    Args:
        model: float or prepared.
        prefixes: modules whose path starts so.
        types: modules of exactly these classes. With neither, all modules.
        value: whether they stay.

    Raises:
        ArgumentError: no module is meant.
    """
    named = tuple(prefixes)
    found = [
        module
        for path, module in model.named_modules()
        if (named and path.startswith(named)) or type(module) in types or not (named or types)
    ]
    if not found:
        raise ArgumentError(f"no module has a path that starts with one of {named} or is one of {types}")
    for module in found:
        vars(module)["preserve_qat_mode"] = value


def is_preserved(module: nn.Module) -> bool:
    """Whether a module was marked; of a fused float module, its layer."""
    layer = module.conv if isinstance(module, FusedModule) else module
    return bool(vars(layer).get("preserve_qat_mode", False))


def carry_mark(source: nn.Module, made: QATModule) -> None:
    """Mark the QAT module that was made of a marked float module."""
    if is_preserved(source):
        vars(made)["preserve_qat_mode"] = True


def frozen(module: QATModule) -> QATModule:
    """Return a copy of a module as it stands in a converted model: evaluated, in VALIDATION state, without gradients.

    So it hands on integers, which is what converted modules take.
    """
    kept = copy.deepcopy(module).eval().requires_grad_(False)
    if any(isinstance(each, FakeQuantize) for each in kept.modules()):  # some have the scale of their input
        set_fake_quantize(kept, FakeQuantState.VALIDATION)
    return kept


def preserved_paths(model: nn.Module) -> list[str]:
    """Return the paths of the modules of a converted model that stayed under QAT."""
    return [path for path, module in model.named_modules() if isinstance(module, QATModule)]

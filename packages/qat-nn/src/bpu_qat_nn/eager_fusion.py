"""Fusion in eager mode: the user names the layers that run one after the other, nothing is traced."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.fx import GraphModule

from bpu_fx_fusion import (
    BATCH_NORMS,
    CONVS,
    FloatFunctional,
    fold_batch_norm,
    fold_refusal,
    fused_class,
    shallow_copy,
)

from .errors import ArgumentError
from .qat_mode import QATMode, get_qat_mode
from .torch_ao import own_type

__all__ = ["expect_no_hooks", "fuse_known_modules", "fuse_modules"]

_RELUS = (nn.ReLU, nn.ReLU6)
_CHAIN = (CONVS, BATCH_NORMS, (FloatFunctional,), _RELUS)
"""What may follow what; all but the first are optional."""

FuserMethods = Mapping[Any, Callable[..., nn.Module]]
"""Type, or tuple of types in order of execution -> a function of (is_qat, *modules) that returns the fused module."""


def fuse_known_modules(
    mod_list: Sequence[nn.Module],
    is_qat: bool = False,
    additional_fuser_method_mapping: FuserMethods | None = None,
) -> list[nn.Module]:
    """Return as many modules: the fused one in the place of the first, or of the addition, and nn.Identity.

    Known are a convolution, transposed convolution or Linear, followed by any of: BatchNorm, the addition of a
    FloatFunctional, ReLU or ReLU6, in this order. BatchNorm is folded by its running statistics, or becomes a child of
    the fused module under ``QATMode.WithBN``. Parameters are shared with the given modules where they do not change.

    Args:
        mod_list: the modules in order of execution.
        is_qat: passed on to the functions of the mapping.
        additional_fuser_method_mapping: tuple of types -> function of (is_qat, *modules), for other chains.

    Raises:
        ArgumentError: the chain is not known.
    """
    types = tuple(type(module) for module in mod_list)
    other = (additional_fuser_method_mapping or {}).get(types)
    slot = 0
    if other is not None:
        fused = other(is_qat, *mod_list)
    else:
        layer, bn, add, relu = _taken_apart(mod_list)
        slot = 0 if add is None else list(mod_list).index(add)
        fused = _fused(layer, bn, add, relu)
    made: list[nn.Module] = [nn.Identity().train(module.training) for module in mod_list]
    made[slot] = fused
    return made


def fuse_modules(
    model: nn.Module,
    modules_to_fuse: Sequence[str] | Sequence[Sequence[str]],
    inplace: bool = False,
    fuser_func: Callable[..., list[nn.Module]] = fuse_known_modules,
    fuse_custom_config_dict: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Fuse the named layers of a model; each fused module stands where its first layer, or its addition, was.

    Given:  `fuse_modules(model, ["conv", "bn", "add", "relu"])` for `self.relu(self.add.add(self.bn(self.conv(x)), y))`
    Result: `add` is a ConvAddReLU2d, the others are nn.Identity. The forward of the model stays as it is; the layer's
    result must be the first operand of the addition.

    Args:
        model: a float model.
        modules_to_fuse: paths in order of execution, or several such lists.
        inplace: change the model itself instead of a copy.
        fuser_func: takes the modules, is_qat and additional_fuser_method_mapping, and returns as many modules.
        fuse_custom_config_dict: ``{"additional_fuser_method_mapping": mapping}``, see ``fuse_known_modules``.

    Raises:
        ArgumentError: a path or a chain is not what it must be; the message says what is.
    """
    if isinstance(model, GraphModule):
        raise ArgumentError("fuse_modules is of the eager mode, and this model was traced; fuse_fx fuses by itself")
    config = fuse_custom_config_dict or {}
    unknown = sorted(config.keys() - {"additional_fuser_method_mapping"})
    if unknown:
        raise ArgumentError(f"fuse_custom_config_dict knows 'additional_fuser_method_mapping', got {unknown}")
    fused = model if inplace else copy.deepcopy(model)
    groups: Any = [modules_to_fuse] if modules_to_fuse and isinstance(modules_to_fuse[0], str) else modules_to_fuse
    for paths in groups:
        modules = [_module_at(fused, path) for path in paths]
        made = fuser_func(modules, model.training, config.get("additional_fuser_method_mapping"))
        for path, module in zip(paths, made, strict=True):
            parent, _, name = path.rpartition(".")
            fused.get_submodule(parent)._modules[name] = module
    return fused


def _module_at(model: nn.Module, path: str) -> nn.Module:
    try:
        module = model.get_submodule(path)
    except AttributeError as error:
        raise ArgumentError(f"modules_to_fuse names {path!r}, but the model has no such module") from error
    expect_no_hooks(module, path)
    return module


def _taken_apart(
    modules: Sequence[nn.Module],
) -> tuple[nn.Module, nn.Module | None, nn.Module | None, nn.Module | None]:
    """Return layer, BatchNorm, addition and activation of a chain."""
    found: list[nn.Module | None] = []
    left = list(modules)
    for types in _CHAIN:
        found.append(left.pop(0) if left and own_type(type(left[0])) in types else None)
    if left or found[0] is None or len(modules) < 2:
        names = [type(module).__name__ for module in modules]
        raise ArgumentError(
            f"cannot fuse {names}: expected one of {[c.__name__ for c in CONVS]}, then in this order any of BatchNorm, "
            "FloatFunctional (its add) and ReLU or ReLU6; a module takes part in one fusion only"
        )
    return found[0], found[1], found[2], found[3]


def _fused(layer: nn.Module, bn: nn.Module | None, add: nn.Module | None, relu: nn.Module | None) -> nn.Module:
    refusal = None if bn is None else fold_refusal(layer, bn)
    if refusal is not None:
        raise ArgumentError(f"cannot fuse {type(layer).__name__} with {type(bn).__name__}: {refusal}")
    start = shallow_copy(layer)
    if bn is not None and get_qat_mode() is QATMode.FuseBN:
        start, bn = fold_batch_norm(layer, bn), None
    if bn is add is relu is None:
        return start
    relu_type = None if relu is None else type(relu)
    fused = fused_class(type(layer), bn=bn is not None, add=add is not None, relu=relu_type)(start, bn, relu)
    fused.training = layer.training
    for module in (layer, add, relu):
        if module is not None and hasattr(module, "qconfig"):
            vars(fused)["qconfig"] = module.qconfig
            break
    return fused


def expect_no_hooks(module: nn.Module, path: str) -> None:
    """Raise ArgumentError if a module that will be replaced has hooks, which would be lost silently."""
    if module._forward_hooks or module._forward_pre_hooks:
        raise ArgumentError(
            f"{path} ({type(module).__name__}) has forward hooks and will be replaced; remove them first"
        )

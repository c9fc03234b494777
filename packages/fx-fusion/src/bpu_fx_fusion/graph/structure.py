"""The tree of modules: copy it while sharing leaves, replace a module at all its places, separate shared ones."""

from __future__ import annotations

import copy
import types
from typing import Any

import torch
import torch.fx
from torch import nn

REGISTRIES = frozenset(vars(nn.Module()).keys() - {"training"})
"""Instance attributes that torch.nn.Module itself keeps: parameters, buffers, children, hooks."""


def shallow_copy(module: nn.Module, cls: type[nn.Module] | None = None) -> nn.Module:
    """Return a new module object with registries of its own, sharing parameters, buffers, children and attributes.

    Args:
        module: Any module but a GraphModule.
        cls: The class of the copy if it should differ; it must work on the same attributes.
    """
    copied: nn.Module = object.__new__(cls or type(module))
    copied.__dict__.update({k: copy.copy(v) if k in REGISTRIES else v for k, v in vars(module).items()})
    return copied


def copy_structure(root: nn.Module) -> nn.Module:
    """Return the same tree of modules with new containers, so that replacing children leaves the original alone.

    Modules without children, parameters and buffers are shared. A container that hangs at several places is copied
    once. Plain attributes are shared as well, except that modules and bound methods in them (also within lists,
    tuples and dicts) refer to the copies.
    """
    copied = _copy_container(root)
    copy_children(copied, {id(root): copied})
    return copied


def copy_children(module: nn.Module, copies: dict[int, nn.Module] | None = None) -> None:
    """Replace, in place, the containers below a module by copies; see `copy_structure`."""
    copies = {} if copies is None else copies
    _copy_below(module, copies)
    for copied in {id(copied): copied for copied in (module, *copies.values())}.values():
        for name, value in vars(copied).items():
            if name not in REGISTRIES:
                vars(copied)[name] = _redirect(value, copies)


def replace_module(root: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` wherever `old` hangs in the tree below `root`, in place."""
    for parent in list(root.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new


def separate_stateless_modules(root: nn.Module) -> None:
    """Make a module that has neither state nor children another object at each of its places, in place.

    One activation that all layers of a net hold in common is so quantized by what each of them gives it. A module with
    parameters or buffers stays one wherever it hangs, and so does a container.
    """
    met: set[int] = set()
    for parent in list(root.modules()):
        for name, child in parent._modules.items():
            if child is None or child._modules or child._parameters or child._buffers:
                continue
            if id(child) in met and not isinstance(child, torch.jit.ScriptModule):
                parent._modules[name] = _copy_container(child)
            met.add(id(child))


def _copy_container(module: nn.Module) -> nn.Module:
    # A graph module's forward belongs to a class of its own, which only its own copying knows to make.
    return copy.copy(module) if isinstance(module, torch.fx.GraphModule) else shallow_copy(module)


def _copy_below(module: nn.Module, copies: dict[int, nn.Module]) -> None:
    for name, child in module._modules.items():
        if child is None or not child._modules or isinstance(child, torch.jit.ScriptModule):
            continue
        if id(child) not in copies:
            copies[id(child)] = _copy_container(child)
            _copy_below(copies[id(child)], copies)
        module._modules[name] = copies[id(child)]


def _redirect(value: Any, copies: dict[int, nn.Module]) -> Any:
    if type(value) in (list, tuple):
        redirected: Any = type(value)(_redirect(item, copies) for item in value)
        return redirected if any(a is not b for a, b in zip(redirected, value, strict=True)) else value
    if type(value) is dict:
        redirected = {key: _redirect(item, copies) for key, item in value.items()}
        return redirected if any(redirected[key] is not value[key] for key in value) else value
    if isinstance(value, types.MethodType):
        return types.MethodType(value.__func__, copies.get(id(value.__self__), value.__self__))
    return copies.get(id(value), value) if isinstance(value, nn.Module) else value

"""Normalizations called as functions (`F.batch_norm(x, self.running_mean, ...)`), as modules with the same tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from torch import nn
from torch.fx import Node

__all__ = ["NORMS", "NORM_PARAMETERS", "shape_behind_layer"]

_AFFINE: Final = ("weight", "bias")
_STATISTICS: Final = ("running_mean", "running_var")

NORM_PARAMETERS: Final[Mapping[str, tuple[str, ...]]] = {
    "batch_norm": (*_STATISTICS, *_AFFINE, "training", "momentum", "eps"),
    "instance_norm": (*_STATISTICS, *_AFFINE, "use_input_stats", "momentum", "eps"),
    "layer_norm": ("normalized_shape", *_AFFINE, "eps"),
    "group_norm": ("num_groups", *_AFFINE, "eps"),
    "rms_norm": ("normalized_shape", "weight", "eps"),
}
"""Function of torch.nn.functional -> its arguments after the first, in order."""


NORM_MODULES: Final[Mapping[str, type[nn.Module]]] = {
    "batch_norm": nn.BatchNorm2d,
    "instance_norm": nn.InstanceNorm2d,
    "layer_norm": nn.LayerNorm,
    "group_norm": nn.GroupNorm,
    "rms_norm": nn.RMSNorm,
}
"""Function of torch.nn.functional -> the module that it becomes."""


Shape = tuple[int, ...] | None
"""Of the input in the example, None if there is none."""

_BATCH_NORMS: Final = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_INSTANCE_NORMS: Final = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}
"""Number of axes of a batch -> module."""


def _batch_norm(given: Mapping[str, Any], owner: nn.Module, shape: Shape) -> nn.Module:
    # Without any sign of it, it is taken to be of maps; with another number of axes BatchNorm2d raises.
    kind = _of_owner(_BATCH_NORMS, owner) or _BATCH_NORMS.get(len(shape or ()), nn.BatchNorm2d)
    made = kind(given["running_mean"].numel(), eps=given.get("eps", 1e-5), momentum=given.get("momentum", 0.1))
    return _with_tensors(made, given, (*_AFFINE, *_STATISTICS))


_AXES_BEHIND: Final[Mapping[type[nn.Module], int]] = {
    nn.Linear: 2,
    nn.Flatten: 2,
    nn.Conv1d: 3,
    nn.ConvTranspose1d: 3,
    nn.Conv2d: 4,
    nn.ConvTranspose2d: 4,
    nn.Conv3d: 5,
    nn.ConvTranspose3d: 5,
}
"""What a batch comes out of with which number of axes. BatchNorm1d takes the three that a Linear may give as well."""

_KEEPS_AXES: Final = ("torch.nn.modules.activation", "torch.nn.modules.batchnorm", "torch.nn.modules.dropout")
"""Where modules of one input come from that leave its axes as they are."""


def shape_behind_layer(node: Node, modules: Mapping[str, nn.Module]) -> Shape:
    """Return a shape of as many axes as the layer gives that a node's value comes from, of unknown lengths."""
    while node.op == "call_module" and node.all_input_nodes:
        module = modules[str(node.target)]
        if type(module) in _AXES_BEHIND:
            return (-1,) * _AXES_BEHIND[type(module)]
        if type(module).__module__ not in _KEEPS_AXES or len(node.all_input_nodes) != 1:
            return None
        node = node.all_input_nodes[0]
    flat = getattr(node.target, "__name__", node.target) == "flatten" and node.args[1:] == (1,) and not node.kwargs
    return (-1, -1) if flat else None


def _instance_norm(given: Mapping[str, Any], owner: nn.Module, shape: Shape) -> nn.Module | None:
    kind = _of_owner(_INSTANCE_NORMS, owner) or _INSTANCE_NORMS.get(len(shape or ()))
    if kind is None:
        return None
    features: Any = owner.num_features if isinstance(owner, kind) else (shape or ())[1]
    affine = any(given.get(name) is not None for name in _AFFINE)
    return _with_tensors(kind(features, eps=given.get("eps", 1e-5), affine=affine), given, _AFFINE)


def _of_owner(kinds: Mapping[int, Any], owner: nn.Module) -> Any:
    """Return that of the modules which the one is whose forward calls the function."""
    return next((kind for kind in kinds.values() if isinstance(owner, kind)), None)


def _layer_norm(given: Mapping[str, Any], owner: nn.Module, shape: Shape) -> nn.Module:
    return _with_tensors(nn.LayerNorm(given["normalized_shape"], eps=given.get("eps", 1e-5)), given, _AFFINE)


def _group_norm(given: Mapping[str, Any], owner: nn.Module, shape: Shape) -> nn.Module:
    features = given["weight"].numel() if given.get("weight") is not None else given["num_groups"]
    return _with_tensors(nn.GroupNorm(given["num_groups"], features, eps=given.get("eps", 1e-5)), given, _AFFINE)


def _rms_norm(given: Mapping[str, Any], owner: nn.Module, shape: Shape) -> nn.Module:
    return _with_tensors(nn.RMSNorm(given["normalized_shape"], eps=given.get("eps")), given, ("weight",))


def _with_tensors(made: nn.Module, given: Mapping[str, Any], names: tuple[str, ...]) -> nn.Module:
    """Let a module use the very tensors that the function was given; where it was given none, it has none."""
    for name in names:
        registry = made._parameters if name in _AFFINE else made._buffers
        tensor = given.get(name)
        if tensor is not None and name in _AFFINE and not isinstance(tensor, nn.Parameter):
            tensor = nn.Parameter(tensor, requires_grad=False)
        registry[name] = tensor
    return made


NORMS: Final[Mapping[str, Callable[[Mapping[str, Any], nn.Module, Shape], nn.Module | None]]] = {
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "rms_norm": _rms_norm,
}
"""Function -> makes the module of its arguments, of the module whose forward called it, and of its input's shape.

None where the module depends on the shape and that is not known."""

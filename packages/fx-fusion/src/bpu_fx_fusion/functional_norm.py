"""Normalizations called as functions (`F.batch_norm(x, self.running_mean, ...)`), as modules with the same tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from torch import nn

__all__ = ["NORMS", "NORM_PARAMETERS"]

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


def _batch_norm(given: Mapping[str, Any], owner: nn.Module) -> nn.Module:
    kind = next((each for each in (nn.BatchNorm1d, nn.BatchNorm3d) if isinstance(owner, each)), nn.BatchNorm2d)
    made = kind(given["running_mean"].numel(), eps=given.get("eps", 1e-5), momentum=given.get("momentum", 0.1))
    return _with_tensors(made, given, (*_AFFINE, *_STATISTICS))


def _instance_norm(given: Mapping[str, Any], owner: nn.Module) -> nn.Module:
    features = given["weight"].numel() if given.get("weight") is not None else 1
    return _with_tensors(nn.InstanceNorm2d(features, eps=given.get("eps", 1e-5), affine=True), given, _AFFINE)


def _layer_norm(given: Mapping[str, Any], owner: nn.Module) -> nn.Module:
    return _with_tensors(nn.LayerNorm(given["normalized_shape"], eps=given.get("eps", 1e-5)), given, _AFFINE)


def _group_norm(given: Mapping[str, Any], owner: nn.Module) -> nn.Module:
    features = given["weight"].numel() if given.get("weight") is not None else given["num_groups"]
    return _with_tensors(nn.GroupNorm(given["num_groups"], features, eps=given.get("eps", 1e-5)), given, _AFFINE)


def _rms_norm(given: Mapping[str, Any], owner: nn.Module) -> nn.Module:
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


NORMS: Final[Mapping[str, Callable[[Mapping[str, Any], nn.Module], nn.Module]]] = {
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "rms_norm": _rms_norm,
}
"""Function -> makes the module of its arguments; the second argument is the module whose forward called it."""

"""How far two results lie apart, and how much of that an operator adds itself when it gets the reference's inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from bpu_kernels.torch_ops.library import quantize

from ..qtensor import QTensor
from .counterparts import Pair
from .record import tensors_in

__all__ = ["in_scales", "largest_error", "real_values", "same_input_error", "scale_of"]


def real_values(result: Any) -> Tensor:
    """Return all numbers of a result in one row, float32; of a QTensor its real values."""
    rows = [_real(leaf).reshape(-1) for leaf in tensors_in(result)]
    return torch.cat(rows) if rows else torch.empty(0)


def _real(tensor: Tensor) -> Tensor:
    return (tensor.dequantize() if isinstance(tensor, QTensor) else tensor).detach().float()


def scale_of(result: Any) -> float | None:
    """Return the scale of a result, the largest if there are several; None for real ones."""
    scales = [float(leaf.scale.max()) for leaf in tensors_in(result) if isinstance(leaf, QTensor)]
    return max(scales, default=None)


def largest_error(reference: Any, result: Any) -> float:
    """Return the largest distance between two results of the same number of elements."""
    difference = real_values(reference).to(real_values(result).device) - real_values(result)
    return float(difference.abs().max()) if difference.numel() else 0.0


def in_scales(reference: Any, result: Any) -> float | None:
    """Return the largest distance in steps of the result's scale, each channel by its own; None for real results."""
    found = []
    for x, y in zip(tensors_in(reference), tensors_in(result), strict=True):
        if isinstance(y, QTensor):
            distance = (_real(x).reshape(y.shape).to(y.scale.device) - _real(y)).abs() / y.scale_along()
            found.append(float(distance.max()) if distance.numel() else 0.0)
    return max(found, default=None)


def same_input_error(pair: Pair) -> float | None:
    """Return the error in scales that the second model's operator makes on the first one's inputs.

    Its inputs are rounded to the scales that the operator had. None if its output is real, or if the inputs of the two
    do not correspond.
    """
    call = pair.second
    if scale_of(call.result) is None:
        return None
    leaves, structure = tree_flatten((call.args, dict(call.kwargs)))
    places = [index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    sources = pair.inputs
    if [leaves[index].numel() for index in places] != [x.numel() for x in sources]:
        return None
    for index, source in zip(places, sources, strict=True):
        leaves[index] = _given(source, leaves[index])
    args, kwargs = tree_unflatten(leaves, structure)
    return in_scales(pair.output, call.function(*args, **kwargs))


def _given(source: Tensor, wanted: Tensor) -> Tensor:
    """Return the values of one tensor in the form of another: its shape, device, scale and type."""
    if not isinstance(wanted, QTensor):
        return source.to(wanted.device).reshape(wanted.shape) if not isinstance(source, QTensor) else wanted
    same = isinstance(source, QTensor) and source.on_grid and torch.equal(source.scale.to(wanted.scale), wanted.scale)
    if isinstance(source, QTensor) and same and source.shape == wanted.shape:
        return source.as_steps()
    real = _real(source).to(wanted.scale.device).reshape(wanted.shape)
    if not wanted.on_grid:
        return wanted.like(real)
    if wanted.per_channel_axis < 0:
        return QTensor(quantize(real, wanted.scale, wanted.dtype), wanted.scale, None, wanted.dtype)
    steps = (real / wanted.scale_along()).round().clamp(wanted.dtype.min, wanted.dtype.max)
    integers = steps.to(getattr(torch, f"int{wanted.dtype.bits}"))
    return QTensor(integers, wanted.scale, None, wanted.dtype, wanted.per_channel_axis)

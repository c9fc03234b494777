"""Convolution, transposed convolution, linear layer and matrix product: exact sums by floating-point arithmetic.

A float32 sum of products of integers is exact, in any order, while no partial sum can reach 2**24; a float64 sum while
none can reach 2**53. int8 layers with more taps than the first bound allows are split over their input channels.
Integer matrix products of torch are not used: some saturate silently on processors without VNNI.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dtypes import QuantDType, qint8, qint32
from ..fixed_point import requantize, requantize_wide, shift_left, wrap32
from ..march import MarchRow
from ..ops.conv import Conv2d, Conv3d
from ..ops.conv_transpose import ConvTranspose2d
from ..ops.linear import Linear, Matmul
from .layer_pass import LayerPass, has_passes

__all__ = ["Weighted", "accumulate", "finish", "matmul", "weighted"]

Weighted = Conv2d | Conv3d | ConvTranspose2d | Linear

FLOAT32_TAPS = 2**24 // (128 * 128)
"""So many products of int8 values always sum exactly in float32."""


def _convolve(kernel: Weighted, x: Tensor, weight: Tensor) -> Tensor:
    """Sum products in the floating type of x and weight; weight in torch's layout."""
    if isinstance(kernel, Linear):
        return F.linear(x, weight)
    if isinstance(kernel, ConvTranspose2d):
        return F.conv_transpose2d(x, weight, None, kernel.stride, kernel.pad, kernel.output_padding, kernel.groups)
    convolve = F.conv2d if isinstance(kernel, Conv2d) else F.conv3d
    return convolve(x, weight, None, kernel.stride, kernel.pad, kernel.dilation, kernel.groups)


def torch_weight(kernel: Weighted) -> Tensor:
    """Return the weights in torch's layout: channel axes first."""
    weight: Tensor = kernel.weight
    return weight if isinstance(kernel, Linear) else weight.movedim(-1, 1)


def taps(kernel: Weighted) -> int:
    """Return the number of products in one sum; for a transposed convolution an upper bound."""
    if isinstance(kernel, ConvTranspose2d):
        return int(kernel.weight.shape[0] // kernel.groups * prod(kernel.weight.shape[1:3]))
    return int(prod(kernel.weight.shape[1:]))


def _fits_float32(kernel: Weighted, weight: Tensor) -> bool:
    """Whether these very weights keep every sum below 2**24 for any int8 input."""
    if isinstance(kernel, ConvTranspose2d):
        return False
    largest = weight.abs().to(torch.int32).flatten(1).sum(1).max()
    return int(largest) * 128 < 2**24


def sums_in_float32(kernel: Weighted, x: Tensor) -> bool:
    """Whether one float32 convolution on the CPU gives every accumulator exactly."""
    if x.dtype != torch.int8 or x.device.type != "cpu":
        return False
    return taps(kernel) <= FLOAT32_TAPS or _fits_float32(kernel, torch_weight(kernel))


def weighted(kernel: Weighted, row: MarchRow, x: Tensor, addend: Tensor | None = None, *, narrow: bool) -> Tensor:
    """Compute a layer's integers; on the CPU, where sums are narrow, requantizing is one pass of the native engine.

    Args:
        kernel: with its arrays as tensors.
        row: the march.
        x: the input.
        addend: the residual, of the output's shape.
        narrow: see ``finish``.
    """
    out = kernel.out_dtype if isinstance(kernel, (Conv2d, Conv3d)) else qint8
    if (
        not narrow
        or out is not qint8
        or not _is_int8(addend)
        or not sums_in_float32(kernel, x)
        or not (x.numel() and has_passes())
    ):
        return finish(kernel, accumulate(kernel, x), row, addend, narrow=narrow)
    with torch.autocast(x.device.type, enabled=False):
        acc = _convolve(kernel, x.float(), torch_weight(kernel).float())
    axis = acc.dim() - 1 if isinstance(kernel, Linear) else 1
    layer = LayerPass(acc, axis, residual=None if addend is None else (addend, None))
    multiplier, bias, residual = (_as_arrays(each) for each in (kernel.multiplier, kernel.bias, kernel.residual))
    return layer.output(row, multiplier, bias, residual, limits=(0 if kernel.relu else qint8.min, qint8.max))


def _is_int8(addend: Tensor | None) -> bool:
    return addend is None or addend.dtype == torch.int8


def _as_arrays(parameters: Any) -> Any:
    """Return the tensors of a dataclass as arrays, without copying; None stays."""
    if parameters is None:
        return None
    return type(parameters)(**{name: value.numpy() for name, value in vars(parameters).items()})


def accumulate(kernel: Weighted, x: Tensor) -> Tensor:
    """Return the accumulator (4) of every output element.

    Args:
        kernel: with int8 weights as a tensor.
        x: int8 or int16.

    Returns:
        int32 for int8 input, int64 for int16 input; channel axis as of x.
    """
    with torch.autocast(x.device.type, enabled=False):  # half precision would not be exact
        return _accumulate(kernel, x)


def _accumulate(kernel: Weighted, x: Tensor) -> Tensor:
    weight = torch_weight(kernel)
    if x.dtype != torch.int8:
        return _convolve(kernel, x.double(), weight.double()).round_().long()
    if x.device.type != "cpu":  # other devices pick algorithms (Winograd, TF32) that are not exact in float32
        return _convolve(kernel, x.double(), weight.double()).round_().int()
    count = taps(kernel)
    if sums_in_float32(kernel, x):
        return _convolve(kernel, x.float(), weight.float()).int()
    if getattr(kernel, "groups", 1) > 1:
        return _convolve(kernel, x.double(), weight.double()).int()
    return _accumulate_split(kernel, x, weight, count)


def _accumulate_split(kernel: Weighted, x: Tensor, weight: Tensor, count: int) -> Tensor:
    """Add the sums over slices of the input channels, each short enough for float32."""
    channel_axis = x.dim() - 1 if isinstance(kernel, Linear) else 1
    weight_axis = 0 if isinstance(kernel, ConvTranspose2d) else 1
    channels = x.shape[channel_axis]
    each = max(1, FLOAT32_TAPS * channels // count)
    if count > FLOAT32_TAPS * channels:  # more taps in one channel than float32 can sum
        return _convolve(kernel, x.double(), weight.double()).int()
    parts = zip(torch.split(x, each, channel_axis), torch.split(weight, each, weight_axis), strict=True)
    total: Tensor | None = None
    for x_part, weight_part in parts:
        partial = _convolve(kernel, x_part.float(), weight_part.float()).int()
        total = partial if total is None else total.add_(partial)
    assert total is not None
    return total


def _along_channels(parameter: Tensor, kernel: Weighted, like: Tensor) -> Tensor:
    """Shape a per-channel parameter for broadcasting against the accumulator."""
    return parameter if isinstance(kernel, Linear) else parameter.reshape(-1, *(1,) * (like.dim() - 2))


def finish(
    kernel: Weighted, acc: Tensor, row: MarchRow, addend: Tensor | None = None, *, narrow: bool = False
) -> Tensor:
    """Turn an accumulator into the output's integers: bias (5), residual (6), requantization (1) or (2), ReLU (3).

    Args:
        kernel: its parameters as tensors.
        acc: as returned by ``accumulate``.
        row: the march.
        addend: int8 residual of the output's shape.
        narrow: promise that accumulator, bias and residual together stay within 32 bits, as they do for parameters that
            ``bpu_kernels.multiplier`` chose for an int8 input; int32 arithmetic is then used, else int64.
    """
    number = torch.int32 if narrow and acc.dtype == torch.int32 else torch.int64
    by = {name: _along_channels(value.to(number), kernel, acc) for name, value in vars(kernel.multiplier).items()}
    acc = acc.to(number)
    if kernel.bias is not None:
        acc = acc + _along_channels(kernel.bias.shifted().to(number), kernel, acc)
    if addend is not None:
        assert kernel.residual is not None
        scale = _along_channels(kernel.residual.sumin_scale.to(number), kernel, acc)
        shift = _along_channels(kernel.residual.sumin_left_shift.to(number), kernel, acc)
        if narrow:  # int32 shifts; the product of int8 and 15 bits leaves 9 bits of head room
            product = addend.to(number) * scale
            acc = acc + ((product << shift.clamp(0, 31)) >> (-shift).clamp(0, 31))
        else:
            acc = acc + wrap32(shift_left(addend.to(number) * scale, shift, torch))
    out: QuantDType = kernel.out_dtype if isinstance(kernel, (Conv2d, Conv3d)) else qint8
    multiplier = type(kernel.multiplier)(**by)
    if out is qint32:
        y = requantize_wide(acc.long(), multiplier.output_right_shift.long(), rounds=row.rounds, xp=torch)
    else:
        y = requantize(acc, multiplier, out, rounds=row.rounds, xp=torch)
    if kernel.relu:
        y = y.clamp_(min=0)
    result: Tensor = y.to(getattr(torch, f"int{out.bits}"))
    return result


def matmul(kernel: Matmul, x: Tensor, y: Tensor) -> Tensor:
    """Return the int32 sums of a batched matrix product of int8 tensors."""
    with torch.autocast(x.device.type, enabled=False):
        if x.shape[-1] <= FLOAT32_TAPS and x.device.type == "cpu":
            return (x.float() @ y.float()).int()
        return (x.double() @ y.double()).round_().int()

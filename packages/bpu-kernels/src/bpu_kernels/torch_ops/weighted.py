"""Convolution, transposed convolution, linear layer and matrix product: exact sums by floating-point arithmetic.

Which floating type carries the integers, and how long sums may be, is the device's matter (carriers.py). int8 layers
with more taps than that are split over their input channels. Integer matrix products of torch are not used: some
saturate silently on processors without VNNI.
"""

from __future__ import annotations

from contextlib import nullcontext
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dtypes import QuantDType, qint8, qint32
from ..fixed_point import requantize, requantize_wide, shift_left, wrap32
from ..march import MarchRow
from ..ops.conv import Conv2d, Conv3d
from ..ops.conv_transpose import ConvTranspose2d
from ..ops.linear import Linear, Matmul
from .carriers import FLOAT64, Carrier, carrier_for, tensor_cores
from .products import convolution_of_windows, transposed_of_windows

__all__ = ["Weighted", "accumulate", "finish", "matmul", "weighted"]

Weighted = Conv2d | Conv3d | ConvTranspose2d | Linear


def _convolve(kernel: Weighted, x: Tensor, weight: Tensor, carrier: Carrier) -> Tensor:
    """Sum products in the carrier's type; weight in torch's layout."""
    x, weight = x.to(carrier.dtype), weight.to(carrier.dtype)
    if carrier is FLOAT64:  # whose sums may be a little off where a device transforms its operands
        return _convolve_directly(kernel, x, weight).round_()
    if not carrier.as_products or isinstance(kernel, Conv3d):
        return _convolve_directly(kernel, x, weight)
    with tensor_cores():
        if isinstance(kernel, Linear):
            return F.linear(x, weight)
        if isinstance(kernel, ConvTranspose2d):
            return transposed_of_windows(kernel, x, weight)
        return convolution_of_windows(kernel, x, weight)


def _convolve_directly(kernel: Weighted, x: Tensor, weight: Tensor) -> Tensor:
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


def _is_exact(kernel: Weighted, carrier: Carrier, weight: Tensor) -> bool:
    """Whether a carrier sums a layer exactly for any int8 input: by the number of taps, or by these very weights."""
    if taps(kernel) <= carrier.taps or carrier is FLOAT64:
        return True
    if not carrier.reads_weights or isinstance(kernel, ConvTranspose2d):
        return False
    largest = weight.abs().to(torch.int32).flatten(1).sum(1).max()
    return int(largest) * 128 < carrier.limit


def _suits(kernel: Weighted, carrier: Carrier) -> bool:
    """Whether a layer is worth a carrier's way: depthwise ones and those in three dimensions are no matrix products."""
    channels = 1 if isinstance(kernel, Linear) else getattr(kernel, "groups", 1)
    outputs = kernel.weight.shape[0]
    return not carrier.as_products or not (isinstance(kernel, Conv3d) or (channels > 1 and channels == outputs))


def weighted(kernel: Weighted, row: MarchRow, x: Tensor, addend: Tensor | None = None, *, narrow: bool) -> Tensor:
    """Compute a layer's integers from its input and residual; ``narrow`` as for ``finish``."""
    return finish(kernel, accumulate(kernel, x), row, addend, narrow=narrow)


def accumulate(kernel: Weighted, x: Tensor, carrier: Carrier | None = None) -> Tensor:
    """Return the accumulator (4) of every output element.

    Args:
        kernel: with int8 weights as a tensor.
        x: int8 or int16.
        carrier: what integers are summed in; the device's own if None.

    Returns:
        int32 for int8 input, int64 for int16 input; channel axis as of x.
    """
    carrier = carrier_for(x, kernel.weight) if carrier is None else carrier
    with torch.autocast(x.device.type, enabled=False):  # half precision would not be exact
        return _accumulate(kernel, x, carrier if _suits(kernel, carrier) else FLOAT64)


def _accumulate(kernel: Weighted, x: Tensor, carrier: Carrier) -> Tensor:
    weight = torch_weight(kernel)
    if _is_exact(kernel, carrier, weight):
        sums = _convolve(kernel, x, weight, carrier)
        return sums.int() if x.dtype == torch.int8 else sums.long()
    channels = x.shape[-1 if isinstance(kernel, Linear) else 1]
    if getattr(kernel, "groups", 1) > 1 or taps(kernel) > carrier.taps * channels:
        return _convolve(kernel, x, weight, FLOAT64).int()
    return _accumulate_split(kernel, x, weight, carrier)


def _accumulate_split(kernel: Weighted, x: Tensor, weight: Tensor, carrier: Carrier) -> Tensor:
    """Add the sums over slices of the input channels, each short enough for the carrier."""
    channel_axis = x.dim() - 1 if isinstance(kernel, Linear) else 1
    weight_axis = 0 if isinstance(kernel, ConvTranspose2d) else 1
    each = max(1, carrier.taps * x.shape[channel_axis] // taps(kernel))
    parts = zip(torch.split(x, each, channel_axis), torch.split(weight, each, weight_axis), strict=True)
    total: Tensor | None = None
    for x_part, weight_part in parts:
        partial = _convolve(kernel, x_part, weight_part, carrier).int()
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


def matmul(kernel: Matmul, x: Tensor, y: Tensor, carrier: Carrier | None = None) -> Tensor:
    """Return the int32 sums of a batched matrix product of int8 tensors; ``carrier`` as for ``accumulate``."""
    carrier = carrier_for(x, y) if carrier is None else carrier
    carrier = carrier if x.shape[-1] <= carrier.taps else FLOAT64
    with torch.autocast(x.device.type, enabled=False), tensor_cores() if carrier.as_products else nullcontext():
        return (x.to(carrier.dtype) @ y.to(carrier.dtype)).round_().int()

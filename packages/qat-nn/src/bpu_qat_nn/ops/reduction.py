"""Sums and means over axes, as kernels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch

from bpu_kernels.dtypes import qint8, qint16
from bpu_kernels.kernel import Kernel
from bpu_kernels.march import MarchRow
from bpu_kernels.multiplier import Bias, choose_bias, choose_multiplier
from bpu_kernels.ops.conv import Conv2d
from bpu_kernels.ops.reduce import Sum

from ..errors import InputError
from ..op import Operator, Output
from ..qtensor import QTensor
from .pooling.average import average
from .rescale import as_multiplier, int32_fields
from .rows import axes_of, back_from_rows, rows

__all__ = ["EVERYWHERE", "NOT_SUMMABLE", "axes_of", "expect_reducible", "is_summable", "reduce_axes", "sum_of_rows"]


EVERYWHERE = ((2, 3), (1,))
"""Axes of a map over which every march sums: height and width, or the channels."""

NOT_SUMMABLE = "so many are summed in equal parts, and it has no divisor of which a convolution could be"
"""Why ``is_summable`` is false."""


def expect_reducible(label: str, row: MarchRow, shape: Sequence[int], dim: int | Sequence[int] | None) -> None:
    """Raise InputError unless a march can sum over these axes of a tensor of this shape."""
    axes, rank = axes_of(dim, len(shape)), len(shape)
    if (rank == 4 and axes in EVERYWHERE) or ("sum" not in row.refused_kernels and axes[0] != 0):
        return
    raise InputError(
        f"{label}: sum or mean over axes {axes} of a tensor of {rank} axes is not available on {row.march}: (2, 3) and "
        "(1,) of four axes always are; elsewhere than on bernoulli2 all axes but the batch are"
    )


def reduce_axes(
    operator: Operator, out: Output, x: QTensor, *, dim: int | Sequence[int] | None, keepdim: bool, divides: bool
) -> QTensor:
    """Sum, or average, over axes that ``expect_reducible`` accepts.

    Height and width of an int8 feature map are one global pooling (14); neighbouring axes are summed as one (29), or
    channels by a convolution with ones where a march sums nothing. What is left, and 16 bits, is such a convolution.
    """
    axes, rank = axes_of(dim, len(x.shape)), len(x.shape)
    count = prod(int(x.shape[axis]) for axis in axes)
    if qint16 in (x.dtype, out.dtype) or axes != tuple(range(axes[0], axes[-1] + 1)):
        y = sum_of_rows(operator, out, rows(x, dim), count if divides else 1)
        return back_from_rows(y, x, dim, keepdim=keepdim)
    if rank == 4 and axes == (2, 3):
        window = (int(x.shape[2]), int(x.shape[3]))
        y = average(operator, x, out, window=window, divisor=count if divides else 1)
    elif "sum" in operator.row.refused_kernels:
        y = _sum_of_channels(operator, out, x, count if divides else 1)
    else:
        y = _sum_as_one(operator, out, x, axes, count if divides else 1)
    if keepdim:
        return y
    flat: Any = y.reshape([n for axis, n in enumerate(x.shape) if axis not in axes])
    result: QTensor = flat
    return result


def _part(length: int, row: MarchRow) -> int:
    """Return the most values of 16 bits that are summed at once in rows of a length."""
    longest = max(row.int16_conv_taps.allowed)
    return length if length <= longest else max(each for each in range(1, longest + 1) if length % each == 0)


def is_summable(length: int, row: MarchRow) -> bool:
    """Whether rows of 16 bits of a length can be summed, in stages if need be."""
    while length > 1 and (part := _part(length, row)) > 1:
        length //= part
    return length == 1


def sum_of_rows(operator: Operator, out: Output, x: QTensor, divisor: float) -> QTensor:
    """Sum each row (the last axis, which stays with length 1): a 1 x 1 convolution by ones.

    Rows of int16 that are longer than a convolution may be are averaged in two stages.

    Raises:
        InputError: such rows have no equal parts.
    """
    length = int(x.shape[-1])
    part = _part(length, operator.row) if x.dtype is qint16 else length
    if part == 1 < length:
        raise InputError(f"{operator.label}: sum or mean of {length} values of 16 bits: {NOT_SUMMABLE}")
    if part < length:
        moving: Any = x
        between = Output(x.scale, x.dtype)
        means = sum_of_rows(operator, between, moving.reshape([*x.shape[:-1], length // part, part]), part)
        moving = means
        return sum_of_rows(operator, out, moving.reshape([*x.shape[:-1], length // part]), divisor / part)

    def build() -> Kernel:
        bound = torch.full_like(x.scale, float(-x.dtype.min * length), dtype=torch.float64)
        real = x.scale.double() / (out.scale.double() * divisor)
        wide = x.dtype is qint16 and length > operator.row.int16_any_shift_taps
        chosen = choose_multiplier(real, bound, out.dtype, operator.row, least_accu_shift=8 if wide else 0, xp=torch)
        ones = torch.ones(1, 1, 1, length, dtype=torch.int8, device=x.scale.device)
        return Conv2d(weight=ones, multiplier=as_multiplier(chosen), out_dtype=out.dtype)

    kernel = operator.derived.get([x, out], build, "rows", length, divisor)
    lead = x.shape[:-1]
    seen: Any = x
    as_map = seen.reshape([lead[0], prod(lead[1:]), 1, length]).permute(0, 3, 1, 2)
    y: Any = as_map.invoke(kernel, operator.row, as_map, scale=out.scale, dtype=out.dtype)
    summed: QTensor = y.permute(0, 2, 3, 1).reshape([*lead, 1])
    return summed


def _sum_of_channels(operator: Operator, out: Output, x: QTensor, divisor: int) -> QTensor:
    """Sum the channels of an int8 map: a 1 x 1 convolution by ones, whose bias centres what the shifts drop."""
    channels = int(x.shape[1])

    def build() -> Kernel:
        bound = torch.full_like(x.scale, float(-qint8.min * channels), dtype=torch.float64)
        chosen = choose_multiplier(
            x.scale.double() / (out.scale.double() * divisor), bound, qint8, operator.row, xp=torch
        )
        bias = choose_bias(torch.zeros_like(bound), chosen, operator.row, xp=torch)
        ones = torch.ones(1, 1, 1, channels, dtype=torch.int8, device=x.scale.device)
        return Conv2d(weight=ones, bias=Bias(**int32_fields(bias)), multiplier=as_multiplier(chosen), out_dtype=qint8)

    kernel = operator.derived.get([x.scale, out.scale], build, "channels", channels, divisor)
    return x.invoke(kernel, operator.row, x, scale=out.scale, dtype=out.dtype)


def _sum_as_one(operator: Operator, out: Output, x: QTensor, axes: tuple[int, ...], divisor: int) -> QTensor:
    shape = x.shape
    length = prod(shape[axis] for axis in axes)
    flat: Any = x if len(axes) == 1 else x.reshape([*shape[: axes[0]], length, *shape[axes[-1] + 1 :]])

    def build() -> Kernel:
        bound = torch.full_like(x.scale, float(-qint8.min * length), dtype=torch.float64)
        multiplier = x.scale.double() / (out.scale.double() * divisor)
        chosen = choose_multiplier(multiplier, bound, qint8, operator.row, xp=torch)
        return Sum(axis=axes[0], multiplier=as_multiplier(chosen))

    kernel = operator.derived.get([x, out], build, "reduce", axes[0], length, divisor)
    y: QTensor = flat.invoke(kernel, operator.row, flat, scale=out.scale, dtype=out.dtype)
    if len(axes) == 1:
        return y
    kept: Any = y.reshape([1 if axis in axes else n for axis, n in enumerate(shape)])
    result: QTensor = kept
    return result

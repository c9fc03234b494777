"""Steps over windows of maps: pools, sums along an axis, bilinear interpolation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from ...dtypes import qint8
from ...fixed_point import compensation, half
from ...kernel import Kernel
from ...ops.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from ...ops.reduce import Sum
from ...ops.resize import ResizeBilinear, sample_positions
from ..words import Words
from .context import Context

__all__ = ["STEPS"]


def _window(
    context: Context,
    opcode: str,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    kernel: Sequence[int],
    stride: Sequence[int] = (1, 1),
    pad: Sequence[int] = (0, 0),
) -> Words:
    words = context.begin(opcode)
    words.tensor(context.inputs[0], shapes[0])
    words.tensor(context.out, shapes[1])
    for entries in (kernel, stride, pad):
        words.list(entries)
    return words


def _avg_pool(context: Context, kernel: AvgPool2d) -> None:
    shapes = (context.inputs[0].spec.shape, context.out.spec.shape)
    words, by = _window(context, "window sum", shapes, kernel.kernel, kernel.stride, kernel.pad), kernel.multiplier
    before = half(by.accu_right_shift.astype(np.int64)) if context.row.rounds else compensation(by)
    words.requantizer(by, context.channels, qint8, rounds=context.row.rounds, before=before)


def _global_avg_pool(context: Context, kernel: GlobalAvgPool2d) -> None:
    shapes = (context.inputs[0].spec.shape, context.out.spec.shape)
    words, by = _window(context, "window sum", shapes, shapes[0][1:3]), kernel.multiplier
    before = half(by.accu_right_shift.astype(np.int64)) if context.row.rounds else 0
    words.requantizer(by, context.channels, qint8, rounds=context.row.rounds, before=before)


def _sum(context: Context, kernel: Sum) -> None:
    """As a window as long as the axis, with all inner axes as channels."""
    shape, axis = context.inputs[0].spec.shape, kernel.axis
    outer, length, inner = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
    by = type(kernel.multiplier)(
        **{
            name: np.tile(np.broadcast_to(value, context.channels), inner // context.channels)
            for name, value in vars(kernel.multiplier).items()
        }
    )
    words = context.begin("window sum")
    words.dense(context.inputs[0], (outer, length, 1, inner))
    words.dense(context.out, (outer, 1, 1, inner))
    for entries in ((length, 1), (1, 1), (0, 0)):
        words.list(entries)
    words.requantizer(by, inner, qint8, rounds=context.row.rounds)


def _max_pool(context: Context, kernel: MaxPool2d) -> None:
    shapes = (context.inputs[0].spec.shape, context.out.spec.shape)
    _window(context, "window max", shapes, kernel.kernel, kernel.stride, kernel.pad)


def _resize_bilinear(context: Context, kernel: ResizeBilinear) -> None:
    words = context.begin("bilinear")
    words.tensor(context.inputs[0])
    words.tensor(context.out)
    for length, size in zip(context.inputs[0].spec.shape[1:3], kernel.size, strict=True):
        for values in sample_positions(length, size, align=kernel.align, precision=kernel.precision):
            words.array(values, "int64")
    words.numbers(kernel.legacy)


STEPS: dict[type[Kernel], Callable[[Context, Any], None]] = {
    AvgPool2d: _avg_pool,
    GlobalAvgPool2d: _global_avg_pool,
    MaxPool2d: _max_pool,
    ResizeBilinear: _resize_bilinear,
    Sum: _sum,
}

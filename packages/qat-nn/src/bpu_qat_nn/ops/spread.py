"""Spreading an operand over a larger one, where an operator does not broadcast."""

from __future__ import annotations

from math import prod
from typing import Any

from bpu_kernels.march import MarchRow
from bpu_kernels.ops.resize import ResizeBilinear

from ..qtensor import QTensor

__all__ = ["spread", "spread_to"]


def spread_to(x: QTensor, shape: tuple[int, ...], row: MarchRow) -> QTensor:
    """Copy a 1 x 1 map over height and width of a shape; every other tensor is returned as it is.

    A bilinear resize of one pixel copies it, since the weights of a sample add up to one.
    """
    if len(shape) != 4 or len(x.shape) != 4 or tuple(x.shape[2:]) != (1, 1) or tuple(shape[2:]) == (1, 1):
        return x
    legacy, precision = row.resize_modes[0]
    kernel = ResizeBilinear(size=tuple(shape[2:]), align="center", precision=precision, legacy=legacy)
    return x.invoke(kernel, row, x, scale=x.scale, dtype=x.dtype)


def spread(x: QTensor, y: QTensor, row: MarchRow) -> tuple[QTensor, QTensor]:
    """Give two operands shapes that the march's elementwise operators take.

    Some do not broadcast maps at all; the others broadcast one operand, so that where both would be, one is copied.
    """
    if row.rounds:
        return _one_broadcast(x, y)
    return spread_to(x, tuple(y.shape), row), spread_to(y, tuple(x.shape), row)


def _one_broadcast(x: QTensor, y: QTensor) -> tuple[QTensor, QTensor]:
    """Copy the smaller of two operands along its axes of length 1 where both would broadcast.

    The batch is not looked at, since an export may leave it open: it does not broadcast, and constants are repeated
    along it.
    """
    rank = max(len(x.shape), len(y.shape))
    padded = (((1,) * (rank - len(each.shape)) + tuple(each.shape))[1:] for each in (x, y))
    first, second = (tuple(map(int, lengths)) for lengths in padded)
    pairs = list(zip(first, second, strict=True))
    if not (any(n < m for n, m in pairs) and any(m < n for n, m in pairs)):
        return x, y
    small: Any = x if prod(first) <= prod(second) else y
    moving = small.reshape([1] * (rank - len(small.shape)) + list(small.shape)) if len(small.shape) < rank else small
    copied: QTensor = moving.expand([moving.shape[0], *(max(pair) for pair in pairs)])
    return (copied, y) if small is x else (x, copied)

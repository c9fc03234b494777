"""Spreading a 1 x 1 map over a larger one, where an operator does not broadcast."""

from __future__ import annotations

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
    """Give two maps one size on a march whose elementwise operators do not broadcast."""
    if row.rounds:
        return x, y
    return spread_to(x, tuple(y.shape), row), spread_to(y, tuple(x.shape), row)

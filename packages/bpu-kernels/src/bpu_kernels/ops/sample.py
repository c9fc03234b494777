"""Sampling feature maps at positions that are data: grid_sample (41) to (43), and RoI align (44) to (46).

Positions are integers in 256ths of a pixel, so their low 8 bits are the weights of the blend (28), as in resizing.
The arithmetic is ours: how the hardware samples is not known. Written for numpy and torch alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..dtypes import qint8, qint16
from ..fixed_point import Array
from ..kernel import IntArray, Kernel, TensorSpec, dtype_problems, size_problems
from ..march import MarchRow

__all__ = ["GridSample", "RoiAlign", "roi_align", "sample_grid"]

PIXEL = 256
"""Positions per pixel."""


def _blended(x: Array, image: Array, y: Array, across: Array, *, zeros: bool) -> Array:
    """Return the blend (28) of four neighbours, before its division by 65536.

    Args:
        x: a map N, H, W, C, int64.
        image: which of the batch, of a shape that broadcasts against the positions.
        y: positions along the height, int64.
        across: positions along the width, int64; they broadcast against ``y``.
        zeros: whether what lies outside the map is 0; otherwise it is the nearest element.

    Returns:
        The sums, of the shape of the positions and C.
    """
    _, height, width, _ = x.shape
    total: Any = 0
    for down in (0, 1):
        rows, row_weight = _neighbour(y, down)
        for right in (0, 1):
            columns, column_weight = _neighbour(across, right)
            weight = row_weight * column_weight
            if zeros:
                inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
                weight = weight * inside
            taken = x[image, rows.clip(0, height - 1), columns.clip(0, width - 1)]
            total = total + taken * weight[..., None]
    return total


def _neighbour(position: Array, which: int) -> tuple[Array, Array]:
    """Return index and weight of the element before a position (0), or behind it (1)."""
    fraction = position & (PIXEL - 1)
    return (position >> 8) + which, fraction if which else PIXEL - fraction


def sample_grid(kernel: GridSample, x: Array, grid: Array, image: Array) -> Array:
    """Equations (41) to (43) on N, H, W, C and N, P, Q, 2 of int64; ``image`` counts the batch, of shape N, 1, 1."""
    sizes = x.shape[1:3]
    y, across = (
        (grid[..., 1 - axis] * kernel.factor[axis] + kernel.offset[axis]) >> kernel.shift[axis] for axis in (0, 1)
    )
    if kernel.padding == "border":
        y, across = (p.clip(0, (n - 1) * PIXEL) for p, n in zip((y, across), sizes, strict=True))
    if kernel.mode == "nearest":
        y, across = ((p + PIXEL // 2) & -PIXEL for p in (y, across))
    return (_blended(x, image, y, across, zeros=True) + (1 << 15)) >> 16


@dataclass(frozen=True, kw_only=True, eq=False)
class GridSample(Kernel):
    """Samples of a map at positions of a grid N, P, Q, (x, y): (41) to (43)."""

    name: ClassVar[str] = "grid_sample"
    arity: ClassVar[tuple[int, int]] = (2, 2)

    factor: tuple[int, ...]
    """Of the grid's steps, for height and width: with ``offset`` and ``shift`` the position in 256ths of a pixel."""
    offset: tuple[int, ...]
    shift: tuple[int, ...]
    mode: str = "bilinear"
    """"bilinear" or "nearest"."""
    padding: str = "zeros"
    """"zeros" or "border": what lies outside."""

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Blend in int64."""
        x, grid = (value.astype(np.int64) for value in inputs)
        image = np.arange(x.shape[0])[:, None, None]
        result: IntArray = sample_grid(self, x, grid, image).astype(np.int8)
        return result

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """N, P, Q, C."""
        self.expect_rank(4, *inputs)
        (batch, _, _, channels), grid = inputs[0].shape, inputs[1].shape
        if grid[0] != batch or grid[3] != 2:
            raise self.reject("expected a grid of the same batch and of two coordinates", *inputs)
        if self.mode not in ("bilinear", "nearest") or self.padding not in ("zeros", "border"):
            raise self.reject(f"mode {self.mode!r}, padding {self.padding!r}", *inputs)
        return TensorSpec((*grid[:3], channels), inputs[0].dtype)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """int8, a grid of 8 or 16 bits, sizes."""
        found = [*dtype_problems(row, inputs[:1], (qint8,)), *dtype_problems(row, inputs[1:], (qint8, qint16))]
        if any(not 0 <= shift < 32 for shift in self.shift):
            found.append(f"shift {self.shift} (allowed: 0..31)")
        return found + size_problems(row, inputs[0])


def _along(kernel: RoiAlign, level: int, begin: Array, end: Array, count: int, each: Array) -> Array:
    """Return the sample positions (44), (45) of boxes along one axis, in 256ths of the level's pixels: n, samples."""
    factor, shift = kernel.factor[level], kernel.shift[level]
    begin, end = ((value * factor + ((1 << shift) >> 1)) >> shift for value in (begin, end))
    extent = end - begin
    if not kernel.aligned:
        extent = extent.clip(PIXEL)
    start = begin - (PIXEL // 2 if kernel.aligned else 0)
    positions: Array = start[:, None] + ((2 * each + 1) * extent[:, None]) // (2 * count)
    return positions


def roi_align(kernel: RoiAlign, maps: tuple[Array, ...], boxes: Array, xp: Any) -> Array:
    """Equations (44) to (46) on maps 1, H, W, C and boxes n, 4 of int64."""
    side, (high, wide) = kernel.samples, kernel.size
    x1, y1, x2, y2 = (boxes[:, i] for i in range(4))
    area = (x2 - x1).clip(0) * (y2 - y1).clip(0)
    level_of = sum((area >= least) * 1 for least in kernel.areas) + 0 * area
    rows, columns = xp.arange(high * side), xp.arange(wide * side)
    if hasattr(boxes, "device") and xp is not np:
        rows, columns = rows.to(boxes.device), columns.to(boxes.device)
    result: Any = 0
    for level, x in enumerate(maps):
        y = _along(kernel, level, y1, y2, high * side, rows)
        across = _along(kernel, level, x1, x2, wide * side, columns)
        inside_y, inside_x = ((p >= -PIXEL) & (p <= n * PIXEL) for p, n in ((y, x.shape[1]), (across, x.shape[2])))
        y, across = (p.clip(0, (n - 1) * PIXEL) for p, n in ((y, x.shape[1]), (across, x.shape[2])))
        sums = _blended(x, 0 * y[:, :, None], y[:, :, None], across[:, None, :], zeros=False)
        sums = sums * (inside_y[:, :, None, None] & inside_x[:, None, :, None])
        total = sums.reshape(len(boxes), high, side, wide, side, -1).sum((2, 4))
        result = result + total * (level_of == level)[:, None, None, None]
    divisor = side * side << 16
    pooled: Array = (2 * result + divisor) // (2 * divisor)
    return pooled


@dataclass(frozen=True, kw_only=True, eq=False)
class RoiAlign(Kernel):
    """Averages of samples in the bins of boxes (44) to (46); each box is pooled from the level of its area."""

    name: ClassVar[str] = "roi_align"
    arity: ClassVar[tuple[int, int]] = (2, 6)

    size: tuple[int, ...]
    """Bins along height and width."""
    samples: int
    """Samples along each side of a bin."""
    factor: tuple[int, ...]
    """For every level: a box's step is ``factor / 2**shift`` 256ths of a pixel."""
    shift: tuple[int, ...]
    areas: tuple[int, ...] = ()
    """Least area, in squares of a box's step, of the second and further levels."""
    aligned: bool = False
    """Whether positions are shifted by half a pixel; otherwise boxes are at least one pixel high and wide."""

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Blend and average in int64."""
        *maps, boxes = (value.astype(np.int64) for value in inputs)
        result: IntArray = roi_align(self, tuple(maps), boxes, np).astype(np.int8)
        return result

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """Boxes become the batch: n, bins, bins, C."""
        *maps, boxes = inputs
        self.expect_rank(4, *maps)
        if len(boxes.shape) != 2 or boxes.shape[1] != 4:
            raise self.reject("expected boxes of four coordinates as the last input", *inputs)
        if any(spec.shape[0] != 1 or spec.shape[3] != maps[0].shape[3] for spec in maps):
            raise self.reject("expected maps of one image with the same channels", *inputs)
        if not len(maps) == len(self.factor) == len(self.shift) == len(self.areas) + 1 or self.samples < 1:
            raise self.reject(f"parameters for {len(self.factor)} levels, {self.samples} samples", *inputs)
        return TensorSpec((boxes.shape[0], *self.size, maps[0].shape[3]), maps[0].dtype)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """int8, boxes of 8 or 16 bits, sizes."""
        found = [*dtype_problems(row, inputs[:-1], (qint8,)), *dtype_problems(row, inputs[-1:], (qint8, qint16))]
        if any(not 0 <= shift < 32 for shift in self.shift):
            found.append(f"shift {self.shift} (allowed: 0..31)")
        return found + size_problems(row, *inputs[:-1])

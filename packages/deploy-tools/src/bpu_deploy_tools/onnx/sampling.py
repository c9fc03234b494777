"""Sampling at positions that are data, in integer operators of ONNX: grid_sample and RoI align, (41) to (46)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bpu_kernels import TensorSpec
from bpu_kernels.march import MarchRow
from bpu_kernels.ops.sample import PIXEL, GridSample, RoiAlign

from .graph import Graph

__all__ = ["grid_sample", "roi_align"]


def _clip(g: Graph, x: str, low: int, high: int) -> str:
    return g.add("Clip", x, g.constant(np.int64(low)), g.constant(np.int64(high)))


def _within(g: Graph, x: str, low: int, high: int) -> str:
    """Return 1 where low <= x <= high, 0 elsewhere, in int64."""
    same = g.add("Equal", x, _clip(g, x, low, high))
    return g.cast(same, 64)


def _column(g: Graph, x: str, index: int) -> str:
    """Return one entry of the last axis, which goes."""
    return g.add("Gather", x, g.constant(np.int64(index)), axis=-1)


def _blended(g: Graph, x: str, spec: TensorSpec, image: str, y: str, across: str, *, zeros: bool) -> str:
    """Return the blend (28) of four neighbours before its division, in int64, channels last."""
    _, height, width, channels = spec.shape
    flat = g.reshape(g.wide(x), (-1, channels))
    total = ""
    for down in (0, 1):
        rows, row_weight = _neighbour(g, y, down)
        for right in (0, 1):
            columns, column_weight = _neighbour(g, across, right)
            weight = g.add("Mul", row_weight, column_weight)
            if zeros:
                for each, length in ((rows, height), (columns, width)):
                    weight = g.add("Mul", weight, _within(g, each, 0, length - 1))
            line = g.add("Add", g.times(image, np.int64(height)), _clip(g, rows, 0, height - 1))
            place = g.add("Add", g.times(line, np.int64(width)), _clip(g, columns, 0, width - 1))
            taken = g.add("Mul", g.add("Gather", flat, place, axis=0), g.add("Unsqueeze", weight, g.constant([-1])))
            total = g.add("Add", total, taken) if total else taken
    return total


def _neighbour(g: Graph, position: str, which: int) -> tuple[str, str]:
    fraction = g.add("Mod", position, g.constant(np.int64(PIXEL)))
    before = g.shift_right(position, 8)
    if which:
        return g.plus(before, np.int64(1)), fraction
    return before, g.add("Sub", g.constant(np.int64(PIXEL)), fraction)


def grid_sample(g: Graph, row: MarchRow, k: GridSample, inputs: Sequence[str], specs: Sequence[TensorSpec]) -> str:
    """Equations (41) to (43)."""
    grid = g.wide(inputs[1])
    positions = []
    for axis in (0, 1):
        scaled = g.plus(g.times(_column(g, grid, 1 - axis), np.int64(k.factor[axis])), np.int64(k.offset[axis]))
        position = g.shift_right(scaled, k.shift[axis])
        if k.padding == "border":
            position = _clip(g, position, 0, (specs[0].shape[1 + axis] - 1) * PIXEL)
        if k.mode == "nearest":
            position = g.times(g.shift_right(g.plus(position, np.int64(PIXEL // 2)), 8), np.int64(PIXEL))
        positions.append(position)
    image = g.constant(np.arange(specs[0].shape[0])[:, None, None])
    total = _blended(g, inputs[0], specs[0], image, *positions, zeros=True)
    return g.cast(g.shift_right(g.plus(total, np.int64(1 << 15)), 16), 8)


def _along(g: Graph, k: RoiAlign, level: int, begin: str, end: str, count: int) -> str:
    """Return the sample positions (44), (45) of boxes along one axis: n, samples."""
    half = np.int64((1 << k.shift[level]) >> 1)
    low, high = (
        g.shift_right(g.plus(g.times(each, np.int64(k.factor[level])), half), k.shift[level]) for each in (begin, end)
    )
    extent = g.add("Sub", high, low)
    if not k.aligned:
        extent = g.add("Max", extent, g.constant(np.int64(PIXEL)))
    start = g.plus(low, np.int64(-PIXEL // 2)) if k.aligned else low
    spread = g.times(g.add("Unsqueeze", extent, g.constant([-1])), 2 * np.arange(count) + 1)
    steps = g.floor_divide(spread, g.constant(np.int64(2 * count)))
    return g.add("Add", g.add("Unsqueeze", start, g.constant([-1])), steps)


def roi_align(g: Graph, row: MarchRow, k: RoiAlign, inputs: Sequence[str], specs: Sequence[TensorSpec]) -> str:
    """Equations (44) to (46)."""
    *maps, given = inputs
    boxes, side, (high, wide) = g.wide(given), k.samples, k.size
    x1, y1, x2, y2 = (_column(g, boxes, index) for index in range(4))
    sides = (g.add("Max", g.add("Sub", b, a), g.constant(np.int64(0))) for a, b in ((x1, x2), (y1, y2)))
    area = g.add("Mul", *sides)
    level_of = g.times(area, np.int64(0))
    for least in k.areas:
        level_of = g.add("Add", level_of, g.cast(g.add("GreaterOrEqual", area, g.constant(np.int64(least))), 64))
    result = ""
    for level, (x, spec) in enumerate(zip(maps, specs, strict=False)):
        _, height, width, channels = spec.shape
        y, across = _along(g, k, level, y1, y2, high * side), _along(g, k, level, x1, x2, wide * side)
        inside = [_within(g, p, -PIXEL, n * PIXEL) for p, n in ((y, height), (across, width))]
        y, across = (_clip(g, p, 0, (n - 1) * PIXEL) for p, n in ((y, height), (across, width)))
        rows, columns = g.add("Unsqueeze", y, g.constant([2])), g.add("Unsqueeze", across, g.constant([1]))
        sums = _blended(g, x, spec, g.times(rows, np.int64(0)), rows, columns, zeros=False)
        for each, axes in zip(inside, ([2, 3], [1, 3]), strict=True):
            sums = g.add("Mul", sums, g.add("Unsqueeze", each, g.constant(axes)))
        bins = g.reshape(sums, (-1, high, side, wide, side, channels))
        total = g.add("ReduceSum", bins, g.constant([2, 4]), keepdims=0)
        chosen = g.cast(g.add("Equal", level_of, g.constant(np.int64(level))), 64)
        total = g.add("Mul", total, g.add("Unsqueeze", chosen, g.constant([1, 2, 3])))
        result = g.add("Add", result, total) if result else total
    divisor = side * side << 16
    rounded = g.plus(g.times(result, np.int64(2)), np.int64(divisor))
    return g.cast(g.floor_divide(rounded, g.constant(np.int64(2 * divisor))), 8)

"""Sampling against the equations on plain Python integers, element by element, and against real arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpu_kernels import InvalidProgramError, TensorSpec, march_row, qint8, qint16
from bpu_kernels.kernel import IntArray
from bpu_kernels.ops.sample import GridSample, RoiAlign
from bpu_kernels.testing import assert_integers_equal, random_case

BAYES = march_row("bayes")
seeds = st.integers(0, 2**32 - 1)
Element = Callable[[int, int], int]


def blend(element: Element, y: int, x: int) -> int:
    """Equation (28) before its division, at a position in 256ths."""
    total = 0
    for down, right in np.ndindex(2, 2):
        weight_y, weight_x = (p % 256 if late else 256 - p % 256 for p, late in ((y, down), (x, right)))
        total += weight_y * weight_x * element(y // 256 + down, x // 256 + right)
    return total


def inside_or_zero(plane: IntArray) -> Element:
    height, width = plane.shape
    return lambda i, j: int(plane[i, j]) if 0 <= i < height and 0 <= j < width else 0


def nearest_inside(plane: IntArray) -> Element:
    height, width = plane.shape
    return lambda i, j: int(plane[min(max(i, 0), height - 1), min(max(j, 0), width - 1)])


@given(seeds)
@settings(max_examples=40)
def test_grid_sample_equals_equations_41_to_43(seed: int) -> None:
    kernel, (x, grid) = random_case("grid_sample", "bayes", np.random.default_rng(seed))
    assert isinstance(kernel, GridSample)
    expected = np.zeros((*grid.shape[:3], x.shape[3]), np.int8)
    for n, p, q, c in np.ndindex(*expected.shape):
        position = []
        for axis in (0, 1):
            at = (int(grid[n, p, q, 1 - axis]) * kernel.factor[axis] + kernel.offset[axis]) >> kernel.shift[axis]
            if kernel.padding == "border":
                at = min(max(at, 0), 256 * (x.shape[1 + axis] - 1))
            position.append((at + 128) // 256 * 256 if kernel.mode == "nearest" else at)
        expected[n, p, q, c] = (blend(inside_or_zero(x[n, :, :, c]), *position) + 2**15) >> 16
    assert_integers_equal(kernel.run(BAYES, x, grid), expected)


@given(seeds)
@settings(max_examples=30)
def test_roi_align_equals_equations_44_to_46(seed: int) -> None:
    kernel, (*maps, boxes) = random_case("roi_align", "bayes", np.random.default_rng(seed))
    assert isinstance(kernel, RoiAlign)
    expected = np.zeros((len(boxes), *kernel.size, maps[0].shape[3]), np.int8)
    for n, p, q, c in np.ndindex(*expected.shape):
        x1, y1, x2, y2 = (int(each) for each in boxes[n])
        area = max(x2 - x1, 0) * max(y2 - y1, 0)
        level = sum(area >= least for least in kernel.areas)
        plane, total, side = maps[level][0, :, :, c], 0, kernel.samples
        for i, j in np.ndindex(side, side):
            y = sample_position(kernel, level, y1, y2, kernel.size[0] * side, p * side + i)
            x = sample_position(kernel, level, x1, x2, kernel.size[1] * side, q * side + j)
            if all(-256 <= at <= 256 * n for at, n in ((y, plane.shape[0]), (x, plane.shape[1]))):
                y, x = (min(max(at, 0), 256 * (n - 1)) for at, n in ((y, plane.shape[0]), (x, plane.shape[1])))
                total += blend(nearest_inside(plane), y, x)
        divisor = side * side * 2**16
        expected[n, p, q, c] = (2 * total + divisor) // (2 * divisor)
    assert_integers_equal(kernel.run(BAYES, *maps, boxes), expected)


def sample_position(kernel: RoiAlign, level: int, low: int, high: int, count: int, index: int) -> int:
    """Equations (44) and (45)."""
    factor, shift = kernel.factor[level], kernel.shift[level]
    begin, end = ((value * factor + ((1 << shift) >> 1)) >> shift for value in (low, high))
    extent = end - begin if kernel.aligned else max(end - begin, 256)
    return begin - (128 if kernel.aligned else 0) + (2 * index + 1) * extent // (2 * count)


def test_box_of_whole_pixels_gives_their_average() -> None:
    """Aligned, with as many samples as pixels, every sample lies in the middle of one."""
    x = np.arange(16, dtype=np.int8).reshape(1, 4, 4, 1)
    kernel = RoiAlign(size=(1, 1), samples=2, factor=(256,), shift=(0,), aligned=True)
    assert kernel.run(BAYES, x, np.array([[1, 1, 3, 3]], np.int8)).item() == round((5 + 6 + 9 + 10) / 4 + 1e-9)


def test_levels_are_chosen_by_area() -> None:
    levels = [np.full((1, 4, 4, 1), value, np.int8) for value in (1, 2, 3)]
    kernel = RoiAlign(size=(1, 1), samples=1, factor=(256,) * 3, shift=(0,) * 3, areas=(4, 9))
    boxes = np.array([[0, 0, 1, 3], [0, 0, 2, 2], [0, 0, 3, 3], [2, 2, 0, 0]], np.int8)
    assert kernel.run(BAYES, *levels, boxes).ravel().tolist() == [1, 2, 3, 1]


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ([(1, 4, 4, 2), (3, 5)], "four coordinates"),
        ([(2, 4, 4, 2), (3, 4)], "maps of one image"),
        ([(1, 4, 4, 2), (1, 2, 2, 2), (3, 4)], "parameters for 1 levels"),
    ],
)
def test_roi_align_refuses_other_shapes(shapes: list[tuple[int, ...]], reason: str) -> None:
    kernel = RoiAlign(size=(2, 2), samples=2, factor=(256,), shift=(0,))
    *maps, boxes = shapes
    with pytest.raises(InvalidProgramError, match=reason):
        kernel.infer(*(TensorSpec(shape, qint8) for shape in maps), TensorSpec(boxes, qint16))


def test_grid_of_another_batch_is_refused() -> None:
    kernel = GridSample(factor=(1, 1), offset=(0, 0), shift=(0, 0))
    with pytest.raises(InvalidProgramError, match="same batch"):
        kernel.infer(TensorSpec((2, 4, 4, 3), qint8), TensorSpec((1, 4, 4, 2), qint16))

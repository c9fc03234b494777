"""Resizing against the scalar equations, and the bounds on bilinear results that section 8 states."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpu_kernels import InvalidProgramError, TensorSpec, march_row, qint8, qint16
from bpu_kernels.ops.resize import ResizeBilinear, ResizeNearest
from bpu_kernels.testing import assert_integers_equal, random_case, random_integers, scalar

seeds = st.integers(0, 2**32 - 1)
BAYES, B2 = march_row("bayes"), march_row("bernoulli2")


@given(seeds, st.sampled_from(["bernoulli2", "bayes"]))
def test_resize_bilinear_equals_equations_25_to_28(seed: int, march: str) -> None:
    kernel, (x,) = random_case("resize_bilinear", march, np.random.default_rng(seed))
    assert isinstance(kernel, ResizeBilinear)
    rows, columns = (
        scalar.source_positions(n, m, center=kernel.align == "center", precision=kernel.precision)
        for n, m in zip(x.shape[1:3], kernel.size, strict=True)
    )
    expected = np.zeros((len(x), *kernel.size, x.shape[3]), np.int8)
    for n, i, j, c in np.ndindex(*expected.shape):
        (y0, y1, fy), (x0, x1, fx) = rows[i], columns[j]
        corners = (int(x[n, y0, x0, c]), int(x[n, y0, x1, c]), int(x[n, y1, x0, c]), int(x[n, y1, x1, c]))
        expected[n, i, j, c] = scalar.bilinear(corners, fy, fx, legacy=kernel.legacy)
    assert_integers_equal(kernel.run(march_row(march), x), expected)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), seeds)
@settings(max_examples=30)
def test_legacy_lies_below_the_exact_value_by_less_than_two_steps(
    rows: int, columns: int, times: int, seed: int
) -> None:
    """Whole factors of 1, 2, 4, 8 have exact positions, so only the blend can differ."""
    factor = 2 ** (times - 1)
    x = random_integers(np.random.default_rng(seed), (1, rows, columns, 1))
    size = (rows * factor, columns * factor)
    got = ResizeBilinear(size=size).run(BAYES, x)
    exact = np.zeros(got.shape)
    for i, j in np.ndindex(*size):
        y, z = (min(max((v + 0.5) / factor - 0.5, 0), n - 1) for v, n in ((i, rows), (j, columns)))
        y0, z0 = int(y), int(z)
        y1, z1, fy, fz = min(y0 + 1, rows - 1), min(z0 + 1, columns - 1), y - int(y), z - int(z)
        top = x[0, y0, z0, 0] * (1 - fz) + x[0, y0, z1, 0] * fz
        exact[0, i, j, 0] = top * (1 - fy) + (x[0, y1, z0, 0] * (1 - fz) + x[0, y1, z1, 0] * fz) * fy
    below = exact - got
    assert below.min() >= 0
    assert below.max() < 2


@given(seeds)
def test_resize_nearest_takes_the_pixel_at_the_floor_of_the_quotient(seed: int) -> None:
    kernel, (x,) = random_case("resize_nearest", "bayes", np.random.default_rng(seed))
    assert isinstance(kernel, ResizeNearest)
    expected = np.stack(
        [
            np.stack(
                [x[:, i * x.shape[1] // kernel.size[0], j * x.shape[2] // kernel.size[1]] for j in range(width)], 1
            )
            for i in range(kernel.size[0])
            for width in [kernel.size[1]]
        ],
        1,
    )
    assert_integers_equal(kernel.run(BAYES, x), expected)


X = TensorSpec((1, 200, 4, 2), qint8)

LIMITS = {
    "mode": (ResizeBilinear(size=(4, 4), legacy=False), X, "mode"),
    "shrinks too far": (ResizeBilinear(size=(1, 4)), X, "resize from 200 to 1"),
    "grows too far": (ResizeBilinear(size=(200, 1028)), X, "resize from 4 to 1028"),
    "nearest by a factor that is no power of two": (ResizeNearest(size=(600, 12)), X, "nearest resize"),
    "nearest by no whole factor": (ResizeNearest(size=(100, 4)), X, "nearest resize"),
    "int16": (ResizeBilinear(size=(4, 4)), TensorSpec(X.shape, qint16), "type qint16"),
}


@pytest.mark.parametrize(("kernel", "x", "message"), LIMITS.values(), ids=LIMITS)
def test_limit_of_bernoulli2(kernel: ResizeBilinear | ResizeNearest, x: TensorSpec, message: str) -> None:
    assert any(message in problem for problem in kernel.problems(B2, x))


@pytest.mark.parametrize("changes", [{"align": "corners"}, {"precision": 7}], ids=str)
def test_unknown_align_and_precision_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidProgramError, match="align"):
        ResizeBilinear(size=(4, 4), **changes).infer(X)

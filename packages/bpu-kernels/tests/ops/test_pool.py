"""Pooling against windows of Python integers, and output sizes against torch's documented rule."""

from __future__ import annotations

from math import ceil, floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpu_kernels import InvalidProgramError, TensorSpec, march_row, qint8, qint16
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.kernel import IntArray
from bpu_kernels.ops.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from bpu_kernels.testing import assert_integers_equal, random_case, scalar

seeds = st.integers(0, 2**32 - 1)
marches = st.sampled_from(["bernoulli2", "bayes"])


def size(n: int, k: int, s: int, p: int, ceil_mode: bool) -> int:
    """torch.nn.MaxPool2d's formula; a window that would start in the right padding is dropped."""
    count = (ceil if ceil_mode else floor)((n + 2 * p - k) / s) + 1
    return count - 1 if ceil_mode and (count - 1) * s >= n + p else count


def windows(kernel: AvgPool2d | MaxPool2d, x: IntArray, fill: int) -> tuple[tuple[int, ...], list[list[int]]]:
    """Return the output's shape and the values of each window in row-major order of outputs."""
    batch, height, width, channels = x.shape
    rows, columns = (
        size(n, k, s, p, kernel.ceil_mode)
        for n, k, s, p in zip((height, width), kernel.kernel, kernel.stride, kernel.pad, strict=True)
    )
    found = []
    for n, i, j, c in np.ndindex(batch, rows, columns, channels):
        values = []
        for u, v in np.ndindex(*kernel.kernel):
            y, z = i * kernel.stride[0] + u - kernel.pad[0], j * kernel.stride[1] + v - kernel.pad[1]
            values.append(int(x[n, y, z, c]) if 0 <= y < height and 0 <= z < width else fill)
        found.append(values)
    return (batch, rows, columns, channels), found


def fields(by: Multiplier) -> tuple[int, int, int]:
    return int(by.accu_right_shift[0]), int(by.output_scale[0]), int(by.output_right_shift[0])


@given(seeds, marches)
def test_avg_pool2d_equals_equations_12_and_13(seed: int, march: str) -> None:
    row = march_row(march)
    kernel, (x,) = random_case("avg_pool2d", march, np.random.default_rng(seed))
    assert isinstance(kernel, AvgPool2d)
    shape, values = windows(kernel, x, 0)
    expected = [scalar.average_pool(sum(window), *fields(kernel.multiplier), rounds=row.rounds) for window in values]
    assert_integers_equal(kernel.run(row, x), np.array(expected, np.int8).reshape(shape))


@given(seeds, marches)
def test_max_pool2d_equals_equation_15(seed: int, march: str) -> None:
    row = march_row(march)
    kernel, (x,) = random_case("max_pool2d", march, np.random.default_rng(seed))
    assert isinstance(kernel, MaxPool2d)
    shape, values = windows(kernel, x, -128)
    assert_integers_equal(kernel.run(row, x), np.array(list(map(max, values)), np.int8).reshape(shape))


@given(seeds, marches)
@settings(max_examples=30)
def test_global_avg_pool2d_equals_equation_14(seed: int, march: str) -> None:
    row = march_row(march)
    kernel, (x,) = random_case("global_avg_pool2d", march, np.random.default_rng(seed))
    assert isinstance(kernel, GlobalAvgPool2d)
    a, m, r = fields(kernel.multiplier)
    expected = np.zeros((len(x), 1, 1, x.shape[3]), np.int8)
    for n, c in np.ndindex(len(x), x.shape[3]):
        total = int(x[n, :, :, c].astype(int).sum())
        expected[n, 0, 0, c] = (
            scalar.average_pool(total, a, m, r, rounds=True)
            if row.rounds
            else scalar.requantize(total, a, m, r, bits=8, rounds=False)
        )
    assert_integers_equal(kernel.run(row, x), expected)


def parameter(value: int) -> np.ndarray:
    return np.array([value], np.int32)


BY = Multiplier(accu_right_shift=parameter(0), output_scale=parameter(16384), output_right_shift=parameter(25))
X = TensorSpec((1, 200, 200, 2), qint8)

LIMITS = {
    "average window": (AvgPool2d(kernel=(8, 2), stride=(1, 1), multiplier=BY), X, "bernoulli2", "kernel 8"),
    "average elements": (AvgPool2d(kernel=(200, 200), stride=(1, 1), multiplier=BY), X, "bayes", "elements 40000"),
    "average of int16": (
        AvgPool2d(kernel=(2, 2), stride=(1, 1), multiplier=BY),
        TensorSpec(X.shape, qint16),
        "bayes",
        "type qint16",
    ),
    "global size": (GlobalAvgPool2d(multiplier=BY), X, "bernoulli2", "height or width 200"),
    "global shift": (GlobalAvgPool2d(multiplier=BY), X, "bayes", "output_right_shift 25"),
    "max window": (MaxPool2d(kernel=(65, 2), stride=(1, 1)), X, "bernoulli2", "kernel 65"),
    "max stride": (MaxPool2d(kernel=(2, 2), stride=(1, 186)), X, "bernoulli2", "stride 186"),
}


@pytest.mark.parametrize(("kernel", "x", "march", "message"), LIMITS.values(), ids=LIMITS)
def test_limit_of_the_march(
    kernel: AvgPool2d | GlobalAvgPool2d | MaxPool2d, x: TensorSpec, march: str, message: str
) -> None:
    assert any(message in problem for problem in kernel.problems(march_row(march), x))


def test_a_window_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidProgramError, match="does not fit"):
        MaxPool2d(kernel=(9, 1), stride=(1, 1)).infer(TensorSpec((1, 8, 8, 1), qint8))

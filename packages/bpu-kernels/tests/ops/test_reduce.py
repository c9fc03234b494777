"""Sums over one axis against sums of Python integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpu_kernels import InvalidProgramError, TensorSpec, march_row, qint8
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.ops.reduce import Sum
from bpu_kernels.testing import assert_integers_equal, random_case, scalar

BAYES = march_row("bayes")
BY = Multiplier(accu_right_shift=np.array([0]), output_scale=np.array([1]), output_right_shift=np.array([0]))


@given(st.integers(0, 2**32 - 1))
def test_sum_equals_equation_29(seed: int) -> None:
    kernel, (x,) = random_case("sum", "bayes", np.random.default_rng(seed))
    assert isinstance(kernel, Sum)
    a, m, r = (int(values[0]) for values in vars(kernel.multiplier).values())
    moved = np.moveaxis(x, kernel.axis, -1)
    totals = [sum(line) for line in moved.reshape(-1, x.shape[kernel.axis]).tolist()]
    expected = np.array([scalar.requantize(t, a, m, r, bits=8, rounds=True) for t in totals], np.int8)
    assert_integers_equal(kernel.run(BAYES, x), np.expand_dims(expected.reshape(moved.shape[:-1]), kernel.axis))


def test_sum_keeps_the_batch() -> None:
    assert Sum(axis=0, multiplier=BY).problems(BAYES, TensorSpec((2, 3), qint8)) == ["sum over the batch"]


def test_sum_over_an_axis_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidProgramError, match="axis 4"):
        Sum(axis=4, multiplier=BY).infer(TensorSpec((1, 2, 3, 4), qint8))

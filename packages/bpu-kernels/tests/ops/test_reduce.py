"""Sums over one axis, its largest element and the place of that, against Python's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpu_kernels import InvalidProgramError, TensorSpec, march_row, qint8, qint16
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.ops.reduce import ArgExtremum, ReduceExtremum, Sum
from bpu_kernels.testing import assert_integers_equal, random_case, scalar

BAYES, B2 = march_row("bayes"), march_row("bernoulli2")
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


@pytest.mark.parametrize("march", ["bernoulli2", "bayes"])
@pytest.mark.parametrize("name", ["reduce_extremum", "arg_extremum"])
@given(st.integers(0, 2**32 - 1))
def test_largest_of_an_axis_and_its_place_equal_equations_48_and_49(name: str, march: str, seed: int) -> None:
    kernel, (x,) = random_case(name, march, np.random.default_rng(seed))
    assert isinstance(kernel, ReduceExtremum | ArgExtremum)
    choose = max if kernel.largest else min
    lines = np.moveaxis(x, kernel.axis, -1)
    found = [
        line.index(choose(line)) if isinstance(kernel, ArgExtremum) else choose(line)
        for line in lines.reshape(-1, x.shape[kernel.axis]).tolist()
    ]
    expected = np.expand_dims(np.array(found, x.dtype).reshape(lines.shape[:-1]), kernel.axis)
    assert_integers_equal(kernel.run(march_row(march), x), expected)


def test_place_that_the_type_does_not_hold_is_refused() -> None:
    ArgExtremum(axis=1).infer(TensorSpec((1, 128), qint8))
    ArgExtremum(axis=1).infer(TensorSpec((1, 129), qint16))
    with pytest.raises(InvalidProgramError, match="no place among 129"):
        ArgExtremum(axis=1).infer(TensorSpec((1, 129), qint8))


@pytest.mark.parametrize(
    ("kernel", "shape", "problem"),
    [
        (ReduceExtremum(axis=0), (2, 3), "a choice along the batch"),
        (ReduceExtremum(axis=1), (1, 65, 3, 4), "length of the axis 65 (allowed: 1..64; "),
        (ArgExtremum(axis=2), (1, 2, 3, 4), "places along an axis that is not the last"),
    ],
    ids=["batch", "long side", "place in a row"],
)
def test_what_bernoulli2_cannot_choose_from_is_a_problem(
    kernel: ReduceExtremum | ArgExtremum, shape: tuple[int, ...], problem: str
) -> None:
    (found,) = kernel.problems(B2, TensorSpec(shape, qint8))
    assert found.startswith(problem)
    assert bool(kernel.problems(BAYES, TensorSpec(shape, qint8))) is (kernel.axis == 0)

"""Choosing by order and by index against Python's own sorting and indexing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpu_kernels import InvalidProgramError, TensorSpec, march_row, qint8, qint16, qint32
from bpu_kernels.ops.choose import Gather, TopIndices
from bpu_kernels.testing import assert_integers_equal, random_case

BAYES = march_row("bayes")
seeds = st.integers(0, 2**32 - 1)


@given(seeds)
def test_top_indices_equal_equation_39(seed: int) -> None:
    kernel, (x,) = random_case("top_indices", "bayes", np.random.default_rng(seed))
    assert isinstance(kernel, TopIndices)
    rows = np.moveaxis(x, kernel.axis, -1)
    sign = -1 if kernel.largest else 1
    found = [
        sorted(range(len(row)), key=lambda i: (sign * row[i], i))[: kernel.k]
        for row in rows.reshape(-1, rows.shape[-1]).tolist()
    ]
    expected = np.array(found, np.int32).reshape(*rows.shape[:-1], kernel.k)
    assert_integers_equal(kernel.run(BAYES, x), np.moveaxis(expected, -1, kernel.axis))


@given(seeds)
def test_gather_equals_equation_40(seed: int) -> None:
    kernel, (x, index) = random_case("gather", "bayes", np.random.default_rng(seed))
    assert isinstance(kernel, Gather)
    expected = np.zeros(index.shape, x.dtype)
    for place in np.ndindex(*index.shape):
        taken = list(place)
        taken[kernel.axis] = min(max(int(index[place]), 0), x.shape[kernel.axis] - 1)
        expected[place] = x[tuple(taken)]
    assert_integers_equal(kernel.run(BAYES, x, index), expected)


def test_more_elements_than_there_are_cannot_be_chosen() -> None:
    with pytest.raises(InvalidProgramError, match="5 elements of axis 1"):
        TopIndices(axis=1, k=5).infer(TensorSpec((2, 4), qint8))


def test_indices_of_another_shape_are_refused() -> None:
    with pytest.raises(InvalidProgramError, match="may differ along axis 1 only"):
        Gather(axis=1).infer(TensorSpec((2, 4, 3), qint8), TensorSpec((2, 4, 2), qint16))


@pytest.mark.parametrize(
    ("kernel", "inputs", "problem"),
    [
        (TopIndices(axis=0, k=1), [TensorSpec((2, 4), qint8)], "a choice along the batch"),
        (Gather(axis=0), [TensorSpec((2, 4), qint8), TensorSpec((2, 4), qint32)], "indices of the batch"),
        (
            Gather(axis=1),
            [TensorSpec((2, 4), qint8), TensorSpec((2, 4), qint8)],
            "input type qint8 (allowed: qint16, qint32)",
        ),
    ],
    ids=["top", "gather", "index type"],
)
def test_what_the_march_lacks_is_a_problem(kernel: TopIndices | Gather, inputs: list[TensorSpec], problem: str) -> None:
    assert kernel.problems(BAYES, *inputs) == [problem]

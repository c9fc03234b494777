"""Concatenation copies integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpu_kernels import InvalidProgramError, TensorSpec, march_row, qint8, qint16
from bpu_kernels.ops.concat import Concat
from bpu_kernels.testing import assert_integers_equal, random_case


@given(st.integers(0, 2**32 - 1))
def test_concat_puts_its_inputs_one_after_the_other(seed: int) -> None:
    kernel, inputs = random_case("concat", "bayes", np.random.default_rng(seed))
    assert isinstance(kernel, Concat)
    got = kernel.run(march_row("bayes"), *inputs)
    start = 0
    for value in inputs:
        stop = start + value.shape[kernel.axis]
        assert_integers_equal(got.take(range(start, stop), axis=kernel.axis), value)
        start = stop
    assert start == got.shape[kernel.axis]


REFUSED = {
    "other length": TensorSpec((1, 4, 5, 2), qint8),
    "other type": TensorSpec((1, 4, 4, 2), qint16),
    "other rank": TensorSpec((1, 4, 4), qint8),
}


@pytest.mark.parametrize("other", REFUSED.values(), ids=REFUSED)
def test_concat_refuses_what_differs_beyond_the_axis(other: TensorSpec) -> None:
    with pytest.raises(InvalidProgramError, match="may differ along axis 3 only"):
        Concat(axis=3).infer(TensorSpec((1, 4, 4, 2), qint8), other)

"""Reshape, transpose, pad and slice move integers and change none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpu_kernels import InvalidProgramError, Kernel, TensorSpec, march_row, qint8, qint32
from bpu_kernels.ops.layout import Pad, Reshape, Slice, Transpose
from bpu_kernels.testing import assert_integers_equal, random_case

seeds = st.integers(0, 2**32 - 1)
BAYES = march_row("bayes")


@given(seeds)
def test_reshape_keeps_the_order_of_elements(seed: int) -> None:
    kernel, (x,) = random_case("reshape", "bayes", np.random.default_rng(seed))
    assert_integers_equal(kernel.run(BAYES, x).ravel(), x.ravel())


@given(seeds)
def test_transpose_puts_input_axis_axes_i_at_output_axis_i(seed: int) -> None:
    kernel, (x,) = random_case("transpose", "bayes", np.random.default_rng(seed))
    assert isinstance(kernel, Transpose)
    got = kernel.run(BAYES, x)
    for index in np.ndindex(*x.shape):
        assert got[tuple(index[axis] for axis in kernel.axes)] == x[index]


@given(seeds)
def test_pad_surrounds_with_the_value_or_the_edge(seed: int) -> None:
    kernel, (x,) = random_case("pad", "bayes", np.random.default_rng(seed))
    assert isinstance(kernel, Pad)
    got = kernel.run(BAYES, x)
    for index in np.ndindex(*got.shape):
        at = [i - before for i, before in zip(index, kernel.before, strict=True)]
        inside = tuple(min(max(i, 0), n - 1) for i, n in zip(at, x.shape, strict=True))
        expected = x[inside] if kernel.mode == "edge" or list(inside) == at else kernel.value
        assert got[index] == expected


@given(seeds)
def test_slice_takes_every_step_th_element(seed: int) -> None:
    kernel, (x,) = random_case("slice", "bayes", np.random.default_rng(seed))
    assert isinstance(kernel, Slice)
    got = kernel.run(BAYES, x)
    for index in np.ndindex(*got.shape):
        assert got[index] == x[tuple(a + i * s for i, a, s in zip(index, kernel.start, kernel.step, strict=True))]


X = TensorSpec((1, 4, 4, 2), qint8)
ZEROS, ONES, STOP = (0, 0, 0, 0), (1, 1, 1, 1), (1, 4, 4, 2)

REFUSED = {
    "reshape to other count": Reshape(shape=(1, 31)),
    "reshape to empty": Reshape(shape=(0, 0)),
    "transpose twice the same": Transpose(axes=(0, 1, 1, 2)),
    "pad negative": Pad(before=(0, -1, 0, 0), after=ZEROS),
    "pad of other rank": Pad(before=(0, 0, 0), after=ZEROS),
    "pad beyond int8": Pad(before=ONES, after=ZEROS, value=128),
    "pad in unknown mode": Pad(before=ONES, after=ZEROS, mode="reflect"),
    "slice of nothing": Slice(start=STOP, stop=STOP, step=ONES),
    "slice backwards": Slice(start=ZEROS, stop=STOP, step=(1, -1, 1, 1)),
    "slice of other rank": Slice(start=(0,), stop=(1,), step=(1,)),
}


@pytest.mark.parametrize("kernel", REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused(kernel: Kernel) -> None:
    with pytest.raises(InvalidProgramError, match=f"{kernel.name} cannot take"):
        kernel.infer(X)


LIMITS = {
    "transpose of the batch": (Transpose(axes=(1, 0, 2, 3)), "move the batch"),
    "pad of the batch": (Pad(before=ONES, after=ZEROS), "padding of the batch"),
    "reshape to many axes": (Reshape(shape=(1,) * 10 + (32,)), "11 dimensions"),
}


@pytest.mark.parametrize(("kernel", "message"), LIMITS.values(), ids=LIMITS)
def test_limit_of_every_march(kernel: Kernel, message: str) -> None:
    assert any(message in problem for problem in kernel.problems(BAYES, X))


def test_int32_can_be_moved_but_not_padded() -> None:
    wide = TensorSpec(X.shape, qint32)
    assert Slice(start=ZEROS, stop=STOP, step=ONES).problems(BAYES, wide) == []
    assert Transpose(axes=(0, 3, 1, 2)).problems(BAYES, wide) == []
    assert Pad(before=ZEROS, after=ZEROS).problems(BAYES, wide) == ["input type qint32 (allowed: qint8, qint16)"]

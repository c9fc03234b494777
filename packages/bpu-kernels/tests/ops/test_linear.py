"""Linear layers and matrix products against sums of Python integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpu_kernels import InvalidProgramError, TensorSpec, march_row, qint8, qint16
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.multiplier import Bias, ResidualScale
from bpu_kernels.ops.linear import Linear, Matmul
from bpu_kernels.testing import assert_integers_equal, random_case, scalar

seeds = st.integers(0, 2**32 - 1)


def entry(values: np.ndarray, channel: int) -> int:
    return int(values[channel % len(values)])


@given(seeds, st.sampled_from(["bernoulli2", "bayes"]))
def test_linear_equals_sums_of_products(seed: int, march: str) -> None:
    row = march_row(march)
    kernel, inputs = random_case("linear", march, np.random.default_rng(seed))
    assert isinstance(kernel, Linear)
    expected = np.zeros((*inputs[0].shape[:-1], len(kernel.weight)), np.int8)
    for index in np.ndindex(*expected.shape):
        o = index[-1]
        acc = sum(int(a) * int(b) for a, b in zip(inputs[0][index[:-1]], kernel.weight[o], strict=True))
        if kernel.bias is not None:
            acc += scalar.wrap(32, entry(kernel.bias.bias, o) << entry(kernel.bias.bias_left_shift, o))
        if kernel.residual is not None:
            term = int(inputs[1][index]) * entry(kernel.residual.sumin_scale, o)
            acc += scalar.wrap(32, scalar.shl(term, entry(kernel.residual.sumin_left_shift, o)))
        a, m, r = (entry(values, o) for values in vars(kernel.multiplier).values())
        y = scalar.requantize(acc, a, m, r, bits=8, rounds=row.rounds)
        expected[index] = max(y, 0) if kernel.relu else y
    assert_integers_equal(kernel.run(row, *inputs), expected)


@given(seeds)
@settings(max_examples=30)
def test_matmul_equals_sums_of_products(seed: int) -> None:
    row = march_row("bayes")
    kernel, (x, y) = random_case("matmul", "bayes", np.random.default_rng(seed))
    assert isinstance(kernel, Matmul)
    a, m, r = (int(values[0]) for values in vars(kernel.multiplier).values())
    leading = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    first, second = (np.broadcast_to(each, (*leading, *each.shape[-2:])) for each in (x, y))
    expected = np.zeros((*first.shape[:-1], y.shape[-1]), np.int8)
    for index in np.ndindex(*expected.shape):
        *batch, i, j = index
        acc = sum(int(first[(*batch, i, k)]) * int(second[(*batch, k, j)]) for k in range(x.shape[-1]))
        expected[index] = scalar.requantize(acc, a, m, r, bits=8, rounds=True)
    assert_integers_equal(kernel.run(row, x, y), expected)


def parameter(value: int) -> np.ndarray:
    return np.array([value], np.int32)


BY = Multiplier(accu_right_shift=parameter(0), output_scale=parameter(16384), output_right_shift=parameter(14))
X = TensorSpec((1, 4), qint8)

LIMITS = {
    "int16 input": ({}, TensorSpec((1, 4), qint16), "input type qint16"),
    "bias beyond int16": ({"bias": Bias(bias=parameter(40000), bias_left_shift=parameter(0))}, X, "bias 40000"),
    "residual shift": (
        {"residual": ResidualScale(sumin_scale=parameter(1), sumin_left_shift=parameter(4))},
        X,
        "sumin_left_shift 4",
    ),
}


@pytest.mark.parametrize(("changes", "x", "message"), LIMITS.values(), ids=LIMITS)
def test_limit_of_bernoulli2(changes: dict[str, Any], x: TensorSpec, message: str) -> None:
    kernel = Linear(weight=np.ones((3, 4), np.int8), multiplier=BY, **changes)
    assert any(message in problem for problem in kernel.problems(march_row("bernoulli2"), x))


def test_shape_rules_refuse_other_lengths() -> None:
    with pytest.raises(InvalidProgramError, match="expect 4 features"):
        Linear(weight=np.ones((3, 4), np.int8), multiplier=BY).infer(TensorSpec((1, 5), qint8))
    with pytest.raises(InvalidProgramError, match="columns of the first"):
        Matmul(multiplier=BY).infer(X, X)
    with pytest.raises(InvalidProgramError, match="the shapes do not broadcast"):
        Matmul(multiplier=BY).infer(TensorSpec((2, 3, 4), qint8), TensorSpec((3, 4, 5), qint8))


def test_matmul_counts_one_mac_per_output_and_column() -> None:
    assert Matmul(multiplier=BY).macs(TensorSpec((2, 3, 4), qint8), TensorSpec((2, 4, 5), qint8)) == 2 * 3 * 4 * 5

"""Convolutions against loops over Python integers, written from sections 2 and 3 of docs/numerics.md."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpu_kernels import InvalidProgramError, MarchRow, TensorSpec, march_row, qint8, qint16, qint32
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.kernel import IntArray
from bpu_kernels.multiplier import Bias, ResidualScale
from bpu_kernels.ops.conv import Conv2d, Conv3d, Convolution
from bpu_kernels.testing import assert_integers_equal, random_case, random_integers, scalar

seeds = st.integers(0, 2**32 - 1)


def entry(values: np.ndarray, channel: int) -> int:
    """One for all channels, or one per channel."""
    return int(values[channel % len(values)])


def naive_finish(kernel: Convolution, row: MarchRow, acc: int, channel: int, addend: int | None) -> int:
    if kernel.bias is not None:
        acc += scalar.wrap(32, entry(kernel.bias.bias, channel) << entry(kernel.bias.bias_left_shift, channel))
    if kernel.residual is not None and addend is not None:
        term = addend * entry(kernel.residual.sumin_scale, channel)
        acc += scalar.wrap(32, scalar.shl(term, entry(kernel.residual.sumin_left_shift, channel)))
    a, m, r = (entry(values, channel) for values in vars(kernel.multiplier).values())
    if kernel.out_dtype is qint32:
        y = scalar.requantize_wide(acc, r, rounds=row.rounds)
    else:
        y = scalar.requantize(acc, a, m, r, bits=kernel.out_dtype.bits, rounds=row.rounds)
    return max(y, 0) if kernel.relu else y


def naive(kernel: Convolution, row: MarchRow, x: IntArray, addend: IntArray | None = None) -> IntArray:
    """Equation (4) as it stands: every product of every output element."""
    shape = kernel.infer(
        *(TensorSpec(v.shape, qint16 if v.dtype == np.int16 else qint8) for v in (x, addend) if v is not None)
    ).shape
    outputs_per_group = kernel.weight.shape[0] // kernel.groups
    per_group = kernel.weight.shape[-1]
    result = np.zeros(shape, kernel.out_dtype.numpy)
    for index in np.ndindex(*shape):
        batch, *place, channel = index
        first = channel // outputs_per_group * per_group
        acc = 0
        for tap in itertools.product(*map(range, kernel.weight.shape[1:-1])):
            at = [
                o * s + t * d - p
                for o, s, t, d, p in zip(place, kernel.stride, tap, kernel.dilation, kernel.pad, strict=True)
            ]
            if all(0 <= i < n for i, n in zip(at, x.shape[1:-1], strict=True)):
                for c in range(per_group):
                    acc += int(x[(batch, *at, first + c)]) * int(kernel.weight[(channel, *tap, c)])
        result[index] = naive_finish(kernel, row, acc, channel, None if addend is None else int(addend[index]))
    return result


@given(seeds, st.sampled_from(["bernoulli2", "bayes", "bayes-e"]))
@settings(max_examples=300)
def test_conv2d_equals_a_naive_loop(seed: int, march: str) -> None:
    kernel, inputs = random_case("conv2d", march, np.random.default_rng(seed))
    assert isinstance(kernel, Conv2d)
    assert_integers_equal(kernel.run(march_row(march), *inputs), naive(kernel, march_row(march), *inputs))


@given(seeds)
@settings(max_examples=20)
def test_conv3d_equals_a_naive_loop(seed: int) -> None:
    row = march_row("bayes")
    kernel, inputs = random_case("conv3d", "bayes", np.random.default_rng(seed))
    assert isinstance(kernel, Conv3d)
    assert_integers_equal(kernel.run(row, *inputs), naive(kernel, row, *inputs))


def parameter(value: int, channels: int = 1) -> np.ndarray:
    return np.full(channels, value, np.int32)


def pointwise(**changes: Any) -> Conv2d:
    """A 1 x 1 convolution of one channel with weight 1 and multiplier 1."""
    by = Multiplier(accu_right_shift=parameter(0), output_scale=parameter(16384), output_right_shift=parameter(14))
    return replace(Conv2d(weight=np.ones((1, 1, 1, 1), np.int8), multiplier=by), **changes)


BAYES = march_row("bayes")
PIXEL = np.full((1, 1, 1, 1), 5, np.int8)


def test_bias_wraps_at_32_bits_before_it_is_added() -> None:
    """(5): bias << shift keeps its low 32 bits; the sum is wider and does not wrap."""
    wrapped = pointwise(bias=Bias(bias=parameter(1 << 30), bias_left_shift=parameter(2)))
    assert wrapped.run(BAYES, PIXEL).item() == 5
    wide = pointwise(
        bias=Bias(bias=parameter(2**31 - 1), bias_left_shift=parameter(0)), weight=np.full((1, 1, 1, 1), 127, np.int8)
    )
    assert wide.run(BAYES, PIXEL).item() == 127  # a wrapped sum would be negative


def test_residual_term_wraps_at_32_bits_before_it_is_added() -> None:
    """(6): 2 * 2**15 * 2**... beyond 31 bits comes back with the other sign."""
    kernel = pointwise(residual=ResidualScale(sumin_scale=parameter(16384), sumin_left_shift=parameter(13)))
    assert kernel.run(BAYES, PIXEL, np.full((1, 1, 1, 1), 16, np.int8)).item() == -128
    assert kernel.run(BAYES, PIXEL, np.full((1, 1, 1, 1), 32, np.int8)).item() == 5


def test_negative_residual_shift_floors() -> None:
    kernel = pointwise(residual=ResidualScale(sumin_scale=parameter(1), sumin_left_shift=parameter(-1)))
    assert kernel.run(BAYES, PIXEL, np.full((1, 1, 1, 1), -3, np.int8)).item() == 5 - 2


def test_int32_output_ignores_scale_and_first_shift() -> None:
    by = Multiplier(accu_right_shift=parameter(7), output_scale=parameter(3), output_right_shift=parameter(1))
    kernel = pointwise(multiplier=by, out_dtype=qint32, weight=np.full((1, 1, 1, 1), 3, np.int8))
    assert kernel.run(BAYES, PIXEL).item() == 8  # (15 + 1) >> 1


def test_accumulator_of_the_largest_int16_convolution_is_exact() -> None:
    """8192 taps of extremes: 8192 * 32768 * 128 = 2**35, far from where float64 stops to be exact."""
    x = np.full((1, 1, 1, 8192), -32768, np.int16)
    weight = np.full((1, 1, 1, 8192), -128, np.int8)
    kernel = pointwise(weight=weight, out_dtype=qint16)
    assert kernel.accumulate(x).item() == 8192 * 32768 * 128


INFER = {
    "other channels": ({}, TensorSpec((1, 4, 4, 2), qint8), "expect 1 channels"),
    "kernel does not fit": (
        {"weight": np.ones((1, 5, 5, 1), np.int8)},
        TensorSpec((1, 4, 4, 1), qint8),
        "does not fit",
    ),
    "rank": ({}, TensorSpec((4, 4, 1), qint8), "4 dimensions"),
}


@pytest.mark.parametrize(("changes", "x", "message"), INFER.values(), ids=INFER)
def test_shape_rule_refuses(changes: dict[str, Any], x: TensorSpec, message: str) -> None:
    with pytest.raises(InvalidProgramError, match=message):
        pointwise(**changes).infer(x)


def test_shape_rule_wants_the_residual_in_the_shape_of_the_output() -> None:
    kernel = pointwise(residual=ResidualScale(sumin_scale=parameter(1), sumin_left_shift=parameter(0)))
    x = TensorSpec((1, 4, 4, 1), qint8)
    assert kernel.infer(x, x) == x
    for inputs in ([x], [x, TensorSpec((1, 4, 5, 1), qint8)]):
        with pytest.raises(InvalidProgramError, match="residual"):
            kernel.infer(*inputs)


LIMITS = {
    "kernel": ({"weight": np.ones((1, 8, 8, 1), np.int8)}, "bernoulli2", qint8, "kernel 8"),
    "stride": ({"stride": (3, 1)}, "bernoulli2", qint8, "stride 3"),
    "dilation": ({"weight": np.ones((1, 3, 3, 1), np.int8), "dilation": (3, 1)}, "bernoulli2", qint8, "dilation 3"),
    "padding above half the kernel": ({"pad": (1, 1)}, "bernoulli2", qint8, "above half"),
    "bias beyond int16": (
        {"bias": Bias(bias=parameter(32768), bias_left_shift=parameter(0))},
        "bernoulli2",
        qint8,
        "bias 32768",
    ),
    "int16 output": ({"out_dtype": qint16}, "bernoulli2", qint8, "output type qint16"),
    "int16 input": ({}, "bernoulli2", qint16, "input type qint16"),
    "int32 output with relu": ({"out_dtype": qint32, "relu": True}, "bernoulli2", qint8, "ReLU fused"),
    "dilated int16": (
        {"weight": np.ones((1, 3, 3, 1), np.int8), "dilation": (2, 2)},
        "bayes",
        qint16,
        "dilation with qint16",
    ),
    "wide int16 needs a first shift": (
        {"weight": np.ones((1, 1, 1, 300), np.int8)},
        "bayes",
        qint16,
        "accu_right_shift below 8",
    ),
    "wide int16 to int32": (
        {"weight": np.ones((1, 1, 1, 300), np.int8), "out_dtype": qint32},
        "bayes",
        qint16,
        "int32 output from int16",
    ),
    "int16 depthwise with even stride": (
        {"weight": np.ones((2, 1, 1, 1), np.int8), "groups": 2, "stride": (2, 2)},
        "bayes",
        qint16,
        "even stride",
    ),
}


def test_dilation_along_an_axis_of_one_tap_is_no_limit() -> None:
    kernel = pointwise(weight=np.ones((1, 1, 3, 1), np.int8), dilation=(3, 2))
    assert not kernel.problems(march_row("bernoulli2"), TensorSpec((1, 16, 16, 1), qint8))


@pytest.mark.parametrize(("changes", "march", "dtype", "message"), LIMITS.values(), ids=LIMITS)
def test_limit_of_the_march(changes: dict[str, Any], march: str, dtype: object, message: str) -> None:
    kernel = pointwise(**changes)
    assert dtype is qint8 or dtype is qint16
    x = TensorSpec((1, 16, 16, kernel.weight.shape[-1] * kernel.groups), dtype)
    assert any(message in problem for problem in kernel.problems(march_row(march), x))


def test_residual_with_wide_output_is_for_bayes_only() -> None:
    residual = ResidualScale(sumin_scale=parameter(1), sumin_left_shift=parameter(0))
    kernel = pointwise(out_dtype=qint32, residual=residual)
    x = TensorSpec((1, 4, 4, 1), qint8)
    assert kernel.problems(march_row("bayes"), x, x) == []
    assert kernel.problems(march_row("bernoulli2"), x, x) == ["residual with qint32 output (allowed: qint8)"]


def test_macs_count_every_tap_of_every_output() -> None:
    rng = np.random.default_rng(0)
    kernel = pointwise(weight=random_integers(rng, (4, 3, 3, 2)), groups=2, pad=(1, 1))
    assert kernel.macs(TensorSpec((1, 8, 8, 4), qint8)) == 8 * 8 * 4 * 3 * 3 * 2

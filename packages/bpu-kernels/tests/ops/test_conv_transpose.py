"""Transposed convolution against the scatter of section 3 of docs/numerics.md, on Python integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpu_kernels import InvalidProgramError, MarchRow, TensorSpec, march_row, qint8, qint16
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.kernel import IntArray
from bpu_kernels.multiplier import Bias, ResidualScale
from bpu_kernels.ops.conv_transpose import ConvTranspose2d
from bpu_kernels.testing import assert_integers_equal, random_case, scalar


def entry(values: np.ndarray, channel: int) -> int:
    return int(values[channel % len(values)])


def naive(kernel: ConvTranspose2d, row: MarchRow, x: IntArray, addend: IntArray | None = None) -> IntArray:
    """``acc[y * s + i - p, x * s + j - p, o] += x[y, x, c] * w[c, i, j, o]``, group by group."""
    inputs_per_group, per_group = x.shape[3] // kernel.groups, kernel.weight.shape[3]
    height, width = (
        (n - 1) * s - 2 * p + k + o
        for n, s, p, k, o in zip(
            x.shape[1:3], kernel.stride, kernel.pad, kernel.weight.shape[1:3], kernel.output_padding, strict=True
        )
    )
    acc = np.zeros((len(x), height, width, per_group * kernel.groups), object)
    for n, row_in, column_in, c in np.ndindex(*x.shape):
        for i, j, o in np.ndindex(*kernel.weight.shape[1:]):
            y_out = row_in * kernel.stride[0] + i - kernel.pad[0]
            x_out = column_in * kernel.stride[1] + j - kernel.pad[1]
            if 0 <= y_out < height and 0 <= x_out < width:
                channel = c // inputs_per_group * per_group + o
                acc[n, y_out, x_out, channel] += int(x[n, row_in, column_in, c]) * int(kernel.weight[c, i, j, o])
    result = np.zeros(acc.shape, np.int8)
    for index in np.ndindex(*acc.shape):
        channel, total = index[-1], int(acc[index])
        if kernel.bias is not None:
            total += scalar.wrap(32, entry(kernel.bias.bias, channel) << entry(kernel.bias.bias_left_shift, channel))
        if kernel.residual is not None and addend is not None:
            term = int(addend[index]) * entry(kernel.residual.sumin_scale, channel)
            total += scalar.wrap(32, scalar.shl(term, entry(kernel.residual.sumin_left_shift, channel)))
        a, m, r = (entry(values, channel) for values in vars(kernel.multiplier).values())
        y = scalar.requantize(total, a, m, r, bits=8, rounds=row.rounds)
        result[index] = max(y, 0) if kernel.relu else y
    return result


@given(st.integers(0, 2**32 - 1), st.sampled_from(["bernoulli2", "bayes"]))
@settings(max_examples=150)
def test_conv_transpose2d_equals_a_naive_scatter(seed: int, march: str) -> None:
    kernel, inputs = random_case("conv_transpose2d", march, np.random.default_rng(seed))
    assert isinstance(kernel, ConvTranspose2d)
    assert_integers_equal(kernel.run(march_row(march), *inputs), naive(kernel, march_row(march), *inputs))


def parameter(value: int) -> np.ndarray:
    return np.array([value], np.int32)


BY = Multiplier(accu_right_shift=parameter(0), output_scale=parameter(16384), output_right_shift=parameter(14))
X = TensorSpec((1, 4, 4, 2), qint8)

LIMITS = {
    "kernel": ({"shape": (2, 1, 2, 3)}, "kernel 1"),
    "stride": ({"stride": (3, 3), "shape": (2, 3, 3, 3)}, "stride 3"),
    "kernel below stride": ({"stride": (4, 4)}, "smaller than the stride"),
    "padding": ({"pad": (2, 2)}, "divided by stride"),
    "padding and stride": ({"stride": (2, 4), "pad": (1, 1)}, "multiple of the stride"),
    "higher than wide": ({"stride": (4, 2)}, "higher than wide"),
    "output padding": ({"output_padding": (2, 0)}, "output_padding"),
    "bias": ({"bias": Bias(bias=parameter(-40000), bias_left_shift=parameter(0))}, "bias -40000"),
    "bias shift": ({"bias": Bias(bias=parameter(1), bias_left_shift=parameter(16))}, "bias_left_shift 16"),
    "residual shift": (
        {"residual": ResidualScale(sumin_scale=parameter(1), sumin_left_shift=parameter(-1))},
        "sumin_left_shift -1",
    ),
}


@pytest.mark.parametrize(("changes", "message"), LIMITS.values(), ids=LIMITS)
def test_limit_of_bernoulli2(changes: dict[str, Any], message: str) -> None:
    shape = changes.get("shape", (2, 2, 2, 3))
    fields = {"stride": (2, 2), **{name: value for name, value in changes.items() if name != "shape"}}
    kernel = ConvTranspose2d(weight=np.ones(shape, np.int8), multiplier=BY, **fields)
    assert any(message in problem for problem in kernel.problems(march_row("bernoulli2"), X, X))


def test_int16_input_is_refused() -> None:
    kernel = ConvTranspose2d(weight=np.ones((2, 2, 2, 3), np.int8), multiplier=BY, stride=(2, 2))
    problems = kernel.problems(march_row("bayes"), TensorSpec(X.shape, qint16))
    assert problems == ["input type qint16 (allowed: qint8)"]


def test_shape_rule_names_the_channels_it_expects() -> None:
    kernel = ConvTranspose2d(weight=np.ones((3, 2, 2, 3), np.int8), multiplier=BY)
    with pytest.raises(InvalidProgramError, match="expect 3 channels"):
        kernel.infer(X)

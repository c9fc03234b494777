"""Additions, products, rescales and ReLU against the scalar equations; chosen additions against exact sums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpu_kernels import InvalidProgramError, MarchRow, QuantDType, TensorSpec, march_row, qint8, qint16
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.kernel import IntArray
from bpu_kernels.multiplier import ResidualScale, choose_add_scaled, choose_add_shifted, choose_multiplier
from bpu_kernels.ops.elementwise import Add, AddScaled, Extremum, Mul, Reinterpret, Relu, Rescale
from bpu_kernels.testing import assert_integers_equal, every_integer, random_case, scalar

seeds = st.integers(0, 2**32 - 1)
BAYES, B2 = march_row("bayes"), march_row("bernoulli2")


def entry(values: np.ndarray, channel: int) -> int:
    return int(values[channel % len(values)])


def pairs(x: IntArray, y: IntArray) -> list[tuple[int, int]]:
    a, b = np.broadcast_arrays(x, y)
    return list(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))


def shaped(values: list[int], x: IntArray, y: IntArray, dtype: np.dtype[np.signedinteger]) -> IntArray:
    result: IntArray = np.array(values).reshape(np.broadcast_shapes(x.shape, y.shape)).astype(dtype)
    return result


@given(seeds)
def test_add_equals_equation_8(seed: int) -> None:
    kernel, (x, y) = random_case("add", "bayes", np.random.default_rng(seed))
    assert isinstance(kernel, Add)
    left, scale, shift, a, m, r = (
        int(v[0]) for v in (kernel.input_left_shift, *vars(kernel.residual).values(), *vars(kernel.multiplier).values())
    )
    bits = kernel.out_dtype.bits
    expected = [
        scalar.requantize((u << left) + scalar.shl(v * scale, shift), a, m, r, bits=bits, rounds=True)
        for u, v in pairs(x, y)
    ]
    assert_integers_equal(kernel.run(BAYES, x, y), shaped(expected, x, y, kernel.out_dtype.numpy))


@given(seeds)
def test_add_scaled_equals_equation_9_with_the_compiler_s_constant(seed: int) -> None:
    kernel, (x, y) = random_case("add_scaled", "bernoulli2", np.random.default_rng(seed))
    assert isinstance(kernel, AddScaled)
    first, second = int(kernel.input_scale[0]), int(kernel.sumin_scale[0])
    a, m, r = (int(v[0]) for v in vars(kernel.multiplier).values())
    c = scalar.compensation(a, m, r)
    expected = [scalar.requantize(u * first + v * second + c, a, m, r, bits=8, rounds=False) for u, v in pairs(x, y)]
    assert_integers_equal(kernel.run(B2, x, y), shaped(expected, x, y, np.dtype(np.int8)))


@given(seeds, st.sampled_from(["bernoulli2", "bayes"]))
def test_mul_equals_equation_10(seed: int, march: str) -> None:
    row = march_row(march)
    kernel, (x, y) = random_case("mul", march, np.random.default_rng(seed))
    assert isinstance(kernel, Mul)
    a, m, r = (int(v[0]) for v in vars(kernel.multiplier).values())
    c = 0 if row.rounds else scalar.compensation(a, m, r)
    bits = kernel.out_dtype.bits
    expected = [scalar.requantize(u * v + c, a, m, r, bits=bits, rounds=row.rounds) for u, v in pairs(x, y)]
    assert_integers_equal(kernel.run(row, x, y), shaped(expected, x, y, kernel.out_dtype.numpy))


@given(seeds, st.sampled_from(["bernoulli2", "bayes"]))
def test_rescale_equals_equations_16_and_17(seed: int, march: str) -> None:
    row = march_row(march)
    kernel, (x,) = random_case("rescale", march, np.random.default_rng(seed))
    assert isinstance(kernel, Rescale)
    m, r = int(kernel.multiplier.output_scale[0]), int(kernel.multiplier.output_right_shift[0])
    bits = kernel.out_dtype.bits
    expected = [scalar.rescale(v, m, r, bits=bits, rounds=row.rounds) for v in x.ravel().tolist()]
    assert_integers_equal(kernel.run(row, x), np.array(expected).reshape(x.shape).astype(kernel.out_dtype.numpy))


def test_relu_keeps_what_is_positive() -> None:
    every = every_integer("qint8")
    assert_integers_equal(Relu().run(BAYES, every), np.array([max(v, 0) for v in range(-128, 128)], np.int8))


def test_reinterpret_copies() -> None:
    every = every_integer("qint16")
    assert_integers_equal(Reinterpret().run(BAYES, every), every)
    assert not Reinterpret.keeps_scale


EVERY = every_integer("qint8")
X, Y = EVERY[:, None], EVERY[None, :]
exponents = st.floats(-4.0, 4.0)


def one(value: float) -> np.ndarray:
    return np.array([value], np.float64)


def error(got: IntArray, x: float, y: float, out: float) -> float:
    """Largest distance in steps from the exact sum of every pair of int8."""
    exact = (X.astype(np.float64) * x + Y.astype(np.float64) * y) / out
    return float(np.abs(got - np.clip(exact, -128, 127)).max())


@given(exponents, exponents, st.floats(-1.5, 0.2))
@settings(max_examples=30)
def test_chosen_bayes_addition_is_within_52_hundredths_of_a_step(x: float, y: float, out: float) -> None:
    """Half a step of rounding, and at most 0.02 of all else, for every pair of int8."""
    x_scale, y_scale = 2.0**x, 2.0**y
    out_scale = (x_scale + y_scale) * 2.0**out
    chosen = choose_add_shifted(one(x_scale), one(y_scale), one(out_scale), BAYES, bits=8)
    unit = chosen.residual
    bound = (128 << int(chosen.input_factor[0])) + 128 * int(unit.sumin_scale[0]) * 2.0 ** int(unit.sumin_left_shift[0])
    by = choose_multiplier(chosen.multiplier, one(bound), qint8, BAYES)
    kernel = Add(input_left_shift=chosen.input_factor, residual=chosen.residual, multiplier=by)
    assert error(kernel.run(BAYES, X, Y), x_scale, y_scale, out_scale) < 0.52


@given(exponents, exponents, st.floats(-1.5, 0.2))
@settings(max_examples=30)
def test_chosen_bernoulli2_addition_is_within_three_quarters_of_a_step(x: float, y: float, out: float) -> None:
    """Half a step of rounding; the quotient of two integers, one of them at most 127, adds up to a quarter."""
    x_scale, y_scale = sorted((2.0**x, 2.0**y))
    out_scale = (x_scale + y_scale) * 2.0**out
    chosen = choose_add_scaled(one(x_scale), one(y_scale), one(out_scale), B2)
    bound = 128.0 * int(chosen.input_factor[0] + chosen.residual.sumin_scale[0])
    by = choose_multiplier(chosen.multiplier, one(bound), qint8, B2)
    kernel = AddScaled(input_scale=chosen.input_factor, sumin_scale=chosen.residual.sumin_scale, multiplier=by)
    assert error(kernel.run(B2, X, Y), x_scale, y_scale, out_scale) < 0.75


def parameter(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


BY = Multiplier(accu_right_shift=parameter(0), output_scale=parameter(16384), output_right_shift=parameter(14))
MAP8, MAP16 = TensorSpec((1, 4, 4, 2), qint8), TensorSpec((1, 4, 4, 2), qint16)


def addition(left: np.ndarray, shift: np.ndarray, out: QuantDType = qint16) -> Add:
    residual = ResidualScale(sumin_scale=parameter(1), sumin_left_shift=shift)
    return Add(input_left_shift=left, residual=residual, multiplier=BY, out_dtype=out)


@pytest.mark.parametrize(
    ("left", "shift", "fits"),
    [([15], [0], True), ([15], [-1], False), ([0], [0], True), ([0], [1], False), ([3, 0], [0, 1], False)],
)
def test_int16_addition_wants_shifts_that_differ_by_0_to_15(left: list[int], shift: list[int], fits: bool) -> None:
    problems = addition(parameter(*left), parameter(*shift)).problems(BAYES, MAP16, MAP16)
    assert bool(problems) is not fits


def test_addition_takes_the_documented_types_only() -> None:
    kernel = addition(parameter(0), parameter(0))
    assert kernel.problems(BAYES, MAP8, MAP16) == []
    assert any("qint16 with qint8" in problem for problem in kernel.problems(BAYES, MAP16, MAP8))


BROADCASTS = {
    "one operand": (BAYES, (1, 1, 1, 2), None),
    "both operands": (BAYES, (1, 8, 1, 2), "only one operand"),
    "the batch": (BAYES, (2, 4, 4, 2), "batch does not broadcast"),
    "on bernoulli2": (B2, (1, 1, 1, 2), "does not broadcast"),
}


@pytest.mark.parametrize(("row", "shape", "message"), BROADCASTS.values(), ids=BROADCASTS)
def test_broadcasting_of_a_product(row: MarchRow, shape: tuple[int, ...], message: str | None) -> None:
    x = TensorSpec((1, 1, 4, 2), qint8) if message == "only one operand" else MAP8
    problems = Mul(multiplier=BY).problems(row, x, TensorSpec(shape, qint8))
    assert problems == [] if message is None else any(message in problem for problem in problems)


def test_shapes_that_do_not_broadcast_are_refused() -> None:
    with pytest.raises(InvalidProgramError, match="do not broadcast"):
        Mul(multiplier=BY).infer(MAP8, TensorSpec((1, 3, 4, 2), qint8))


def test_rescale_has_no_first_shift() -> None:
    by = Multiplier(accu_right_shift=parameter(1), output_scale=parameter(1), output_right_shift=parameter(0))
    assert Rescale(multiplier=by).problems(BAYES, MAP8) == ["accu_right_shift of a rescale must be 0"]


def test_relu_and_bernoulli2_take_int8_only() -> None:
    assert Relu().problems(BAYES, MAP16) == ["input type qint16 (allowed: qint8)"]
    assert Rescale(multiplier=BY, out_dtype=qint16).problems(B2, MAP8) == ["output type qint16"]


@pytest.mark.parametrize("march", ["bernoulli2", "bayes"])
@given(seeds)
def test_extremum_equals_equation_47(march: str, seed: int) -> None:
    kernel, (x, y) = random_case("extremum", march, np.random.default_rng(seed))
    assert isinstance(kernel, Extremum)
    expected = [(max if kernel.largest else min)(u, v) for u, v in pairs(x, y)]
    assert_integers_equal(kernel.run(march_row(march), x, y), shaped(expected, x, y, x.dtype))


def test_extremum_of_two_types_is_refused() -> None:
    with pytest.raises(InvalidProgramError, match="expected one type"):
        Extremum().infer(TensorSpec((1, 2), qint8), TensorSpec((1, 2), qint16))


def test_extremum_of_one_channel_is_a_problem_of_bernoulli2() -> None:
    maps = [TensorSpec((1, 3, 3, 1), qint8)] * 2
    assert Extremum().problems(B2, *maps) == ["the larger of two maps of one channel"]
    assert not Extremum().problems(BAYES, *maps)

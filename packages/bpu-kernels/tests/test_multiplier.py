"""The choice of parameters: ranges always hold, errors stay within what is stated, floors are centred."""

from __future__ import annotations

from math import floor

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bpu_kernels import March, QuantDType, march_row, qint8, qint16
from bpu_kernels.fixed_point import Multiplier, requantize
from bpu_kernels.kernel import outside, parameter_problems
from bpu_kernels.march import MarchRow
from bpu_kernels.multiplier import (
    MULTIPLIER_ERROR,
    choose_add_scaled,
    choose_add_shifted,
    choose_bias,
    choose_multiplier,
    choose_rescale,
    choose_residual_scale,
    smallest_weight_scale,
)
from bpu_kernels.testing import scalar

B2, BAYES = march_row("bernoulli2"), march_row("bayes")
rows = st.sampled_from([march_row(march) for march in March])
reals = st.floats(-12.0, 12.0).map(lambda exponent: 10.0**exponent)
bounds = st.integers(1, 2**31)
outputs = st.sampled_from([qint8, qint16])


def one(value: float) -> np.ndarray:
    return np.array([value], np.float64)


def choose(real: float, bound: int, out: QuantDType, row: MarchRow) -> tuple[Multiplier, int, int, int]:
    by = choose_multiplier(one(real), one(bound), out, row)
    return by, int(by.accu_right_shift[0]), int(by.output_scale[0]), int(by.output_right_shift[0])


@given(reals, bounds, outputs, rows)
def test_multiplier_respects_the_ranges_of_the_march(real: float, bound: int, out: QuantDType, row: MarchRow) -> None:
    assert parameter_problems(choose(real, bound, out, row)[0], row) == []


@given(reals, bounds, outputs, rows)
def test_multiplier_error_is_half_a_unit_of_15_bits(real: float, bound: int, out: QuantDType, row: MarchRow) -> None:
    """Relative error at most MULTIPLIER_ERROR, or half a unit of the largest right shift where that is coarser."""
    _, a, m, r = choose(real, bound, out, row)
    wanted = real * 2.0**a
    assume(wanted <= 32767)
    assert abs(m * 2.0**-r - wanted) <= max(wanted * MULTIPLIER_ERROR, 2.0**-32)


@given(st.floats(32767.5, 1e12), bounds, outputs, rows)
def test_multiplier_beyond_15_bits_is_the_largest(real: float, bound: int, out: QuantDType, row: MarchRow) -> None:
    _, _, m, r = choose(real, bound, out, row)
    assert (m, r) == (32767, 0)


def centring(a: int, m: int, r: int, row: MarchRow) -> int:
    """What ``choose_bias`` adds: half of what the first shift drops, and (7) where the second shift floors as well."""
    return ((1 << a) >> 1) + (0 if row.rounds else min(scalar.compensation(a, m, r), 2**29))


@given(reals, bounds, outputs, rows, st.lists(st.integers(-(2**31), 2**31), min_size=8, max_size=8))
@settings(max_examples=300)
def test_int16_saturation_changes_nothing_that_the_output_would_not_saturate(
    real: float, bound: int, out: QuantDType, row: MarchRow, drawn: list[int]
) -> None:
    """With and without the saturation in the middle of (1) every accumulator within the bound gives the same."""
    by, a, m, r = choose(real, bound, out, row)
    assume(a < max(row.accu_right_shift.allowed))
    edges = [sign * ((n << a) + d) for n in (32766, 32767, 32768, 32769) for d in (-1, 0, 1) for sign in (1, -1)]
    inside = [v for v in (*drawn, *edges, bound, -bound) if abs(v) <= bound]
    acc = [v + offset for v in inside for offset in (0, centring(a, m, r, row))]
    got = requantize(np.array(acc), by, out, rounds=row.rounds).tolist()
    free = [scalar.sat(out.bits, ((v >> a) * m + (scalar.half(r) if row.rounds else 0)) >> r) for v in acc]
    assert got == free


@given(st.floats(-8.0, -4.0).map(lambda exponent: 10.0**exponent), st.integers(2**17, 2**26), outputs, rows)
def test_first_shift_is_the_smallest_possible(real: float, bound: int, out: QuantDType, row: MarchRow) -> None:
    """With one less, int16 would saturate an accumulator within the bound that the output may not saturate."""
    _, a, m, r = choose(real, bound, out, row)
    assume(a > 0)
    top = 32766.5 * 2.0 ** (a - 1)
    assert bound + centring(a, m, r, row) >= top * (1 - 2.0**-14)
    assert real * top <= out.max + 0.5


@given(reals, bounds, st.integers(0, 16))
def test_least_accu_shift_is_kept(real: float, bound: int, least: int) -> None:
    by = choose_multiplier(one(real), one(bound), qint16, BAYES, least_accu_shift=least)
    assert int(by.accu_right_shift[0]) >= least
    assert parameter_problems(by, BAYES) == []


@given(reals, bounds)
def test_range_of_the_second_shift_can_be_narrowed(real: float, bound: int) -> None:
    limit = BAYES.global_pool_right_shift
    by = choose_multiplier(one(real), one(bound), qint8, BAYES, right_shift=limit)
    assert parameter_problems(by, BAYES, right_shift=limit) == []


@given(reals, rows)
def test_rescale_has_no_first_shift_and_15_bits(real: float, row: MarchRow) -> None:
    by = choose_rescale(one(real), row)
    assert parameter_problems(by, row) == []
    assert int(by.accu_right_shift[0]) == 0
    got = int(by.output_scale[0]) * 2.0 ** -int(by.output_right_shift[0])
    assert got == 32767 or abs(got - real) <= max(real * MULTIPLIER_ERROR, 2.0**-32)


@given(reals, rows)
def test_residual_scale_respects_ranges_and_is_as_near_as_they_allow(real: float, row: MarchRow) -> None:
    chosen = choose_residual_scale(one(real), row)
    scale, shift = int(chosen.sumin_scale[0]), int(chosen.sumin_left_shift[0])
    assert outside("sumin_scale", [scale], row.sumin_scale) == []
    assert outside("sumin_left_shift", [shift], row.sumin_left_shift) == []
    least = min(row.sumin_left_shift.allowed)
    largest = 32767.0 * 2.0 ** max(row.sumin_left_shift.allowed)
    error = abs(scale * 2.0**shift - real)
    assert real > largest or error <= max(real * MULTIPLIER_ERROR, 2.0 ** (least - 1))


real_biases = st.floats(-(2.0**30), 2.0**30, allow_nan=False)


@given(real_biases, reals, st.integers(1, 2**30), rows)
def test_bias_respects_the_ranges_of_the_march(bias: float, real: float, bound: int, row: MarchRow) -> None:
    chosen = choose_bias(one(bias), choose(real, bound, qint8, row)[0], row)
    assert row.bias.min <= int(chosen.bias[0]) <= row.bias.max
    assert outside("bias_left_shift", chosen.bias_left_shift, row.bias_left_shift) == []


def centred(bias: float, a: int, m: int, r: int, row: MarchRow) -> int:
    return round(bias) + centring(a, m, r, row)


@given(real_biases, reals, st.integers(1, 2**30))
def test_bayes_bias_is_centred_and_whole(bias: float, real: float, bound: int) -> None:
    by, a, m, r = choose(real, bound, qint8, BAYES)
    chosen = choose_bias(one(bias), by, BAYES)
    assert int(chosen.bias[0]) == min(centred(bias, a, m, r, BAYES), 2**31 - 1)
    assert int(chosen.bias_left_shift[0]) == 0


@given(real_biases, reals, st.integers(1, 2**30))
def test_bernoulli2_bias_takes_the_smallest_left_shift_and_floors(bias: float, real: float, bound: int) -> None:
    by, a, m, r = choose(real, bound, qint8, B2)
    chosen = choose_bias(one(bias), by, B2)
    stored, shift, whole = int(chosen.bias[0]), int(chosen.bias_left_shift[0]), centred(bias, a, m, r, B2)
    assume(-(2**30) <= whole < 2**30)
    assert stored == whole >> shift
    assert shift == 0 or not -(2**15) <= whole >> (shift - 1) < 2**15


def test_bias_of_an_int32_output_is_the_rounded_bias() -> None:
    assert choose_bias(np.array([0.5, 1.5, -2.5, 7.0]), None, BAYES).bias.tolist() == [0, 2, -2, 7]


@pytest.mark.parametrize("row", [B2, BAYES], ids=["bernoulli2", "bayes"])
@pytest.mark.parametrize("real", [0.7, 0.031, 0.00123, 0.00004])
def test_centring_leaves_no_mean_error(row: MarchRow, real: float) -> None:
    """The mean of output minus exact value over many accumulators is below a hundredth of a step."""
    bound = 100 / real
    by = choose_multiplier(one(real), one(bound * 1.2), qint8, row)
    bias = choose_bias(one(0.0), by, row)
    acc = np.arange(-bound, bound, max(bound / 100_000, 1)).astype(np.int64)
    stored = int(bias.bias[0]) << int(bias.bias_left_shift[0])
    error = requantize(acc + stored, by, qint8, rounds=row.rounds) - acc * real
    tie = 0.5 * real if real > 0.1 else 0.0  # few accumulators per step: half of one of them remains
    assert abs(error.mean()) < 0.01 + tie
    assert np.abs(error).max() < 1.01


@given(
    real=st.floats(-22.0, 0.0).map(lambda exponent: 2.0**exponent),
    bound=st.floats(3.0, 24.0).map(lambda exponent: floor(2.0**exponent)),
    part=st.floats(-1.0, 1.0),
    out=outputs,
    row=rows,
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=200)
def test_requantization_is_within_the_stated_distance_of_the_exact_value(
    real: float, bound: int, part: float, out: QuantDType, row: MarchRow, seed: int
) -> None:
    """docs/numerics.md (37): rounding, the multiplier's error, what the first shift drops, the bias's own rounding."""
    assume(out in row.activations)
    bias = part * bound
    by, a, _, _ = choose(real, bound + floor(abs(bias)) + 1, out, row)
    stored = choose_bias(one(bias), by, row)
    rng = np.random.default_rng(seed)
    reach = min(bound, int((out.max + 2) / real))
    acc = np.concatenate([rng.integers(-n, n, 300, endpoint=True) for n in (bound, reach)])
    got = requantize(acc + (int(stored.bias[0]) << int(stored.bias_left_shift[0])), by, out, rounds=row.rounds)
    exact = np.clip((acc + bias) * real, out.min, out.max)
    dropped = 0.5 + (0.0 if a == 0 else 2.0 ** (a - 1)) + 2.0 ** int(stored.bias_left_shift[0]) - 1
    floors = 0.0 if row.rounds else 0.5
    limit = 0.5 + (out.max + 1) * MULTIPLIER_ERROR + real * (dropped + floors)
    assert np.abs(got - exact).max() <= limit * (1 + 1e-9)


@given(reals, reals, reals, st.sampled_from([8, 16]))
@settings(max_examples=200)
def test_addition_respects_the_ranges_of_bayes(x: float, y: float, out: float, bits: int) -> None:
    chosen = choose_add_shifted(one(x), one(y), one(out), BAYES, bits=bits)
    assert outside("sumin_scale", chosen.residual.sumin_scale, BAYES.sumin_scale) == []
    assert outside("sumin_left_shift", chosen.residual.sumin_left_shift, BAYES.sumin_left_shift) == []
    assert outside("input_left_shift", chosen.input_factor, BAYES.input_left_shift) == []
    if bits == 16:
        assert 0 <= int(chosen.input_factor[0] - chosen.residual.sumin_left_shift[0]) <= 15


@given(reals, reals, reals)
@settings(max_examples=200)
def test_addition_respects_the_ranges_of_bernoulli2(x: float, y: float, out: float) -> None:
    chosen = choose_add_scaled(one(x), one(y), one(out), B2)
    assert outside("input_scale", chosen.input_factor, B2.input_scale) == []
    assert outside("sumin_scale", chosen.residual.sumin_scale, B2.add_sumin_scale) == []


@given(reals, st.floats(-1e6, 1e6), reals, rows)
def test_smallest_weight_scale_keeps_bias_and_residual_within_range(
    x_scale: float, bias: float, residual_scale: float, row: MarchRow
) -> None:
    """Real bias and residual in units of x_scale * weight scale: below 2**29, and no residual term that wraps."""
    weight_scale = smallest_weight_scale(one(x_scale), row, bias=one(bias), residual_scale=one(residual_scale))
    unit = x_scale * float(weight_scale[0])
    assert abs(bias) / unit <= 2.0**29 * (1 + 1e-12)
    chosen = choose_residual_scale(one(residual_scale / unit), row)
    scale, shift = int(chosen.sumin_scale[0]), int(chosen.sumin_left_shift[0])
    assert 128 * scale * 2.0**shift <= 2**30
    assert scale < 32767 or residual_scale / unit <= 32767.5 * 2.0**shift


def test_weight_scales_without_bias_and_residual_may_be_as_small_as_they_like() -> None:
    assert smallest_weight_scale(one(0.1), BAYES, bias=None, residual_scale=None)[0] == 2.0**-60

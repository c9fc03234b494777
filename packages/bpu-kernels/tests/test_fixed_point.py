"""Every requantization against the scalar equations, exhaustively where the domain is small."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpu_kernels import DTYPES, qint8, qint16
from bpu_kernels import fixed_point as fp
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.testing import assert_integers_equal, every_integer, scalar

SHIFTS = range(32)
SCALES = (0, 1, 3, 12345, 16384, 32767)
INT8 = every_integer("qint8").astype(np.int64)
ROUNDS = pytest.mark.parametrize("rounds", [True, False], ids=["half_up", "floor"])


def by(a: int, m: int, r: int, dtype: type = np.int64) -> Multiplier:
    return Multiplier(
        accu_right_shift=np.array([a], dtype),
        output_scale=np.array([m], dtype),
        output_right_shift=np.array([r], dtype),
    )


def corners(shift: int) -> np.ndarray:
    """Accumulators around the point where int16 saturates after a shift, and around 0."""
    edges = [edge << shift for edge in (-32769, -32768, -32767, -1, 0, 1, 32766, 32767, 32768)]
    return np.array([edge + offset for edge in edges for offset in (-1, 0, 1)], np.int64)


def test_half_is_what_makes_a_floor_shift_round_half_up() -> None:
    shifts = np.array(SHIFTS)
    assert fp.half(shifts).tolist() == [scalar.half(s) for s in SHIFTS]
    for shift in SHIFTS:
        exact = np.floor(INT8 / 2**shift + 0.5).astype(np.int64)
        assert_integers_equal((INT8 + fp.half(np.int64(shift))) >> shift, exact)


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_saturate_clamps_to_the_range(bits: int) -> None:
    values = [0, -1, *(sign * ((1 << n) + d) for n in (7, 15, 31, 40) for d in (-1, 0, 1) for sign in (1, -1))]
    assert fp.saturate(np.array(values), bits).tolist() == [scalar.sat(bits, v) for v in values]


@given(st.integers(-(2**62), 2**62))
def test_wrap32_keeps_the_low_32_bits(value: int) -> None:
    assert int(fp.wrap32(np.int64(value))) == scalar.wrap(32, value)


@given(st.integers(-(2**31), 2**31), st.integers(-31, 31))
def test_shift_left_floors_where_the_shift_is_negative(value: int, shift: int) -> None:
    assert int(fp.shift_left(np.int64(value), np.int64(shift))) == scalar.shl(value, shift)


@ROUNDS
@pytest.mark.parametrize("accu_right_shift", SHIFTS)
def test_requantize_equals_equation_1_for_every_int8_and_every_shift(accu_right_shift: int, rounds: bool) -> None:
    acc = np.concatenate([INT8 << accu_right_shift, corners(accu_right_shift)])
    for r in SHIFTS:
        m = SCALES[(r + accu_right_shift) % len(SCALES)]
        for out in (qint8, qint16):
            got = fp.requantize(acc, by(accu_right_shift, m, r), out, rounds=rounds)
            expected = [
                scalar.requantize(v, accu_right_shift, m, r, bits=out.bits, rounds=rounds) for v in acc.tolist()
            ]
            assert got.tolist() == expected


@given(
    acc=st.integers(-(2**45), 2**45),
    a=st.integers(0, 31),
    m=st.integers(0, 32767),
    r=st.integers(0, 31),
    bits=st.sampled_from([8, 16]),
    rounds=st.booleans(),
)
def test_requantize_equals_equation_1_for_wide_accumulators(
    acc: int, a: int, m: int, r: int, bits: int, rounds: bool
) -> None:
    got = fp.requantize(np.array([acc]), by(a, m, r), DTYPES[f"qint{bits}"], rounds=rounds)
    assert int(got[0]) == scalar.requantize(acc, a, m, r, bits=bits, rounds=rounds)


@given(acc=st.integers(-(2**31), 2**31 - 1), a=st.integers(0, 31), m=st.integers(0, 32767), r=st.integers(0, 31))
def test_requantize_needs_no_more_than_32_bits(acc: int, a: int, m: int, r: int) -> None:
    narrow = fp.requantize(np.array([acc], np.int32), by(a, m, r, np.int32), qint8, rounds=True)
    assert int(narrow[0]) == scalar.requantize(acc, a, m, r, bits=8, rounds=True)


@ROUNDS
def test_requantize_wide_equals_equation_2(rounds: bool) -> None:
    values = [*range(-128, 128), *(sign * ((1 << n) + d) for n in (30, 31, 40) for d in (-1, 0, 1) for sign in (1, -1))]
    for r in SHIFTS:
        got = fp.requantize_wide(np.array(values), np.array([r]), rounds=rounds)
        assert got.tolist() == [scalar.requantize_wide(v, r, rounds=rounds) for v in values]


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_compensation_equals_equation_11_for_every_pair_of_shifts(dtype: type) -> None:
    for a in SHIFTS:
        for r in SHIFTS:
            for m in SCALES:
                assert int(fp.compensation(by(a, m, r, dtype))[0]) == scalar.compensation(a, m, r)


@given(a=st.integers(0, 31), m=st.integers(1, 32767), r=st.integers(0, 31))
def test_compensation_is_half_an_output_step_rounded(a: int, m: int, r: int) -> None:
    """floor(2^(a+r-1) / m + 0.5): twice its distance to 2^(a+r-1) / m is at most 1."""
    c = int(fp.compensation(by(a, m, r))[0])
    assert abs(2 * m * c - 2 ** (a + r)) <= m


@ROUNDS
def test_requantize_pool_equals_equations_12_and_13(rounds: bool) -> None:
    for a in SHIFTS:
        total = np.concatenate([INT8 << min(a, 24), corners(a)])
        for r in SHIFTS:
            m = SCALES[(a + r) % len(SCALES)]
            got = fp.requantize_pool(total, by(a, m, r), rounds=rounds)
            assert got.tolist() == [scalar.average_pool(v, a, m, r, rounds=rounds) for v in total.tolist()]


@ROUNDS
@pytest.mark.parametrize("m", SCALES)
def test_rescale_equals_equations_16_and_17_for_every_int8(m: int, rounds: bool) -> None:
    for r in SHIFTS:
        for out in (qint8, qint16):
            got = fp.rescale(INT8, by(0, m, r, np.int32), out, rounds=rounds)
            assert got.tolist() == [scalar.rescale(v, m, r, bits=out.bits, rounds=rounds) for v in INT8.tolist()]


@given(x=st.integers(-32768, 32767), m=st.integers(0, 32767), r=st.integers(0, 31), rounds=st.booleans())
def test_rescale_equals_the_equations_for_int16(x: int, m: int, r: int, rounds: bool) -> None:
    got = fp.rescale(np.array([x]), by(0, m, r), qint16, rounds=rounds)
    assert int(got[0]) == scalar.rescale(x, m, r, bits=16, rounds=rounds)


def test_identity_rescale_on_bernoulli2_adds_one() -> None:
    """The trap of section 6: m = 16384, r = 14 gives x + 1 where nothing rounds."""
    got = fp.rescale(INT8, by(0, 16384, 14), qint8, rounds=False)
    assert_integers_equal(got, np.minimum(INT8 + 1, 127))

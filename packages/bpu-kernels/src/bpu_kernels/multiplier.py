"""From real scales to the hardware's integers: multipliers, residual and addition scales, biases.

The rules are ours (docs/numerics.md, "Choice of parameters"); the hardware only fixes the ranges. Everything is
evaluated on float64 arrays by operations that are exact or rounded once by IEEE 754, so numpy and torch (``xp``) agree
to the bit. All real arguments are float64 arrays of length 1 or C that broadcast; results are int64 arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .dtypes import QuantDType
from .fixed_point import Array, Multiplier, clip, compensation, requantize, wrap32
from .march import Limit, MarchRow

__all__ = [
    "MULTIPLIER_ERROR",
    "AddScales",
    "Bias",
    "ResidualScale",
    "choose_add_scaled",
    "choose_add_shifted",
    "choose_bias",
    "choose_multiplier",
    "choose_rescale",
    "choose_residual_scale",
    "smallest_weight_scale",
]

MULTIPLIER_ERROR = 2.0**-15
"""Largest relative error of a chosen multiplier while its right shift stays in range: half a unit in 2**14..2**15."""

_SMALLEST = 2.0**-60
"""Multipliers below this are taken as this one: their product with any accumulator rounds to 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ResidualScale:
    """The factor ``sumin_scale * 2**sumin_left_shift`` of a residual (6)."""

    sumin_scale: Array
    sumin_left_shift: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class AddScales:
    """Factors of the two operands of an addition, and the real size of one accumulator unit over the output scale."""

    input_factor: Array
    """``input_left_shift`` of (8) or ``input_scale`` of (9)."""
    residual: ResidualScale
    multiplier: Array
    """Real multiplier from accumulator to output, float64."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bias:
    """A bias in the form that the march stores (5)."""

    bias: Array
    bias_left_shift: Array

    def shifted(self) -> Array:
        """Return what is added to an accumulator: equation (5), in int64."""
        bias, shift = (
            value.astype(np.int64) if isinstance(value, np.ndarray) else value.long() for value in vars(self).values()
        )
        return wrap32(bias << shift)


def _last(limit: Limit) -> int:
    return max(limit.allowed)


def _int64(value: Array, xp: Any) -> Array:
    return value.astype(np.int64) if xp is np else value.to(xp.int64)


def _float64(value: Array, xp: Any) -> Array:
    return value.astype(np.float64) if xp is np else value.to(xp.float64)


def _power_of_two(exponent: Array, xp: Any) -> Array:
    """``2.0**exponent`` for integer exponents of -62..62, exactly."""
    if xp is np:
        return np.ldexp(1.0, exponent)
    one = xp.ones_like(exponent)
    return _float64(one << clip(exponent, 0, 62, xp), xp) / _float64(one << clip(-exponent, 0, 62, xp), xp)


def _fifteen_bit_exponent(value: Array, xp: Any) -> Array:
    """Return the e with which positive reals are nearest to ``m * 2**e`` for an integer m in 2**14..2**15 - 1."""
    fraction, exponent = xp.frexp(clip(value, _SMALLEST, None, xp))
    carry = xp.round(fraction * 2.0**15) == 2.0**15  # the fraction rounds up to 1.0
    return _int64(exponent, xp) - 15 + _int64(carry, xp)


def _fifteen_bits(value: Array, exponent: Array, xp: Any) -> Array:
    """Return ``value * 2**-exponent`` rounded once, at most 2**15 - 1; fewer bits where the exponent is coarser."""
    return _int64(xp.round(clip(value * _power_of_two(-exponent, xp), 0.0, 2.0**15 - 1, xp)), xp)


def _scale_and_shift(multiplier: Array, most: int, xp: Any) -> tuple[Array, Array]:
    """``(m, r)`` with ``m * 2**-r`` next to the multiplier, m within 15 bits, r within 0..most."""
    shift = clip(-_fifteen_bit_exponent(multiplier, xp), 0, most, xp)
    return _fifteen_bits(multiplier, -shift, xp), shift


def choose_multiplier(
    multiplier: Array,
    bound: Array,
    out: QuantDType,
    row: MarchRow,
    *,
    least_accu_shift: int = 0,
    right_shift: Limit | None = None,
    xp: Any = np,
) -> Multiplier:
    """Choose (accu_right_shift, output_scale, output_right_shift) for a real multiplier.

    The first shift is the smallest with which the saturation to int16 in (1) changes nothing that the saturation of
    the output would not change as well: either no accumulator reaches it, or what reaches it saturates the output. A
    smaller first shift drops fewer bits. The scale then keeps 15 bits, so the multiplier's relative error is at most
    ``MULTIPLIER_ERROR`` as long as the second shift stays within its range.

    Args:
        multiplier: output steps per accumulator unit, positive.
        bound: largest absolute value that the accumulator can take, without the constants that centre floors, which
            are added here: half an output step where the march floors the second shift, half a unit of the first.
        out: qint8 or qint16.
        row: the march; its ranges hold, also where they make the first shift too small to avoid saturation.
        least_accu_shift: lower bound of the first shift (8 for some int16 convolutions).
        right_shift: range of the second shift, ``row.output_right_shift`` by default.
        xp: the namespace of the arrays.
    """
    most = _last(right_shift or row.output_right_shift)
    multiplier = clip(multiplier, _SMALLEST, None, xp)
    if not row.rounds:
        bound = bound + 0.5 / multiplier
    reach = xp.where(bound * multiplier < out.max - 0.5, bound, (out.max - 0.5) / multiplier)
    fraction, exponent = xp.frexp(reach / 32766.5)
    accu = clip(_int64(exponent, xp) - _int64(fraction <= 0.5, xp), least_accu_shift, _last(row.accu_right_shift), xp)

    def at(shift: Array) -> Multiplier:
        m, r = _scale_and_shift(multiplier * _power_of_two(shift, xp), most, xp)
        return Multiplier(accu_right_shift=shift, output_scale=m, output_right_shift=r)

    def saturates_first(by: Multiplier) -> Array:
        unit = xp.ones_like(by.accu_right_shift) << by.accu_right_shift
        low = requantize(-32768 * unit, by, out, rounds=row.rounds, xp=xp)
        high = requantize(32767 * unit, by, out, rounds=row.rounds, xp=xp)
        return (bound + (unit >> 1) > 32767 * unit) & ((high < out.max) | (low > out.min))

    again = saturates_first(at(accu))  # the rounding of the scale, or of an int16 output, can need one more
    return at(clip(accu + _int64(again, xp), least_accu_shift, _last(row.accu_right_shift), xp))


def choose_rescale(multiplier: Array, row: MarchRow, xp: Any = np) -> Multiplier:
    """Choose the multiplier of a rescale (16), (17), which has no first shift."""
    m, r = _scale_and_shift(multiplier, _last(row.output_right_shift), xp)
    return Multiplier(accu_right_shift=xp.zeros_like(r), output_scale=m, output_right_shift=r)


def _residual(factor: Array, limit: Limit, xp: Any) -> ResidualScale:
    shift = clip(_fifteen_bit_exponent(factor, xp), min(limit.allowed), _last(limit), xp)
    return ResidualScale(sumin_scale=_fifteen_bits(factor, shift, xp), sumin_left_shift=shift)


def choose_residual_scale(factor: Array, row: MarchRow, xp: Any = np) -> ResidualScale:
    """Choose scale and shift for a residual added to an accumulator (6).

    ``factor`` is the residual's scale in accumulator units; ``smallest_weight_scale`` keeps it within range.
    Bernoulli2 has no negative shift, so there a factor is rounded to an integer.
    """
    return _residual(factor, row.sumin_left_shift, xp)


def choose_add_shifted(
    x_scale: Array, y_scale: Array, out_scale: Array, row: MarchRow, *, bits: int, xp: Any = np
) -> AddScales:
    """Choose the factors of a Bayes addition (8): ``x << input_left_shift`` and ``y * sumin_scale`` shifted.

    x gets up to 8 fractional bits, fewer where y's term would leave 31 bits. The operand with the larger scale defines
    the unit of the accumulator, so that its multiplier is the more exact one.

    Args:
        x_scale: scale of the operand that is shifted.
        y_scale: scale of the operand that is multiplied.
        out_scale: scale of the output.
        row: a Bayes march.
        bits: of the wider operand, 8 or 16.
        xp: the namespace of the arrays.
    """
    ratio = y_scale / x_scale
    _, exponent = xp.frexp(ratio)
    left = clip(30 - bits + 1 - _int64(exponent, xp), 0, 8, xp)
    residual = _residual(ratio * _power_of_two(left, xp), row.sumin_left_shift, xp)
    # With one int16 operand the hardware allows more; the narrower range costs nothing.
    most = _last(row.add_int16_shift_difference if bits == 16 else row.add_shift_difference)
    shift = residual.sumin_left_shift
    fitting = xp.where(left - shift > most, left - most, xp.where(shift > left, left, shift))
    scale = residual.sumin_scale * _power_of_two(shift - fitting, xp)
    scale = clip(_int64(xp.round(scale), xp), 0, 2**15 - 1, xp)
    residual = ResidualScale(sumin_scale=scale, sumin_left_shift=fitting)
    y_factor = clip(residual.sumin_scale, 1, None, xp) * _power_of_two(residual.sumin_left_shift, xp)
    unit = xp.where(ratio < 1.0, x_scale / _power_of_two(left, xp), y_scale / y_factor)
    return AddScales(input_factor=left, residual=residual, multiplier=unit / out_scale)


def choose_add_scaled(x_scale: Array, y_scale: Array, out_scale: Array, row: MarchRow, xp: Any = np) -> AddScales:
    """Choose the factors of a Bernoulli2 addition (9): ``x * input_scale + y * sumin_scale``, both integers.

    Of all input scales the one is taken whose quotient with a whole sumin_scale comes nearest to the ratio of the real
    scales. Swap the operands so that ``x_scale <= y_scale``: that way the quotient is finest.
    """
    most = _last(row.input_scale)
    ratio = y_scale / x_scale
    candidates = xp.arange(most, 0, -1) + xp.zeros_like(ratio)  # the largest first: it wins among equals
    whole = clip(xp.round(candidates * ratio), 0, _last(row.add_sumin_scale), xp)
    best = xp.argmin(xp.abs(whole / candidates - ratio))
    first, second = candidates[best].reshape(1), whole[best].reshape(1)
    residual = ResidualScale(sumin_scale=_int64(second, xp), sumin_left_shift=xp.zeros_like(_int64(second, xp)))
    unit = xp.where(ratio < 1.0, x_scale / first, y_scale / clip(second, 1.0, None, xp))
    return AddScales(input_factor=_int64(first, xp), residual=residual, multiplier=unit / out_scale)


def choose_bias(bias: Array, by: Multiplier | None, row: MarchRow, xp: Any = np) -> Bias:
    """Choose the stored bias (5) and centre the floors that the hardware does not compensate.

    Half of what the first shift drops is added on every march; Bernoulli2, which floors the second shift too, gets half
    an output step (7) as well and stores 16 bits with a left shift, dropping low bits.

    Args:
        bias: in accumulator units, not necessarily whole; zeros where the layer has none.
        by: the chosen multiplier, or None for int32 output, where nothing is shifted.
        row: the march.
        xp: the namespace of the arrays.
    """
    whole = _int64(clip(xp.round(bias), -(2.0**31), 2.0**31 - 1, xp), xp)
    if by is not None:
        whole = whole + ((xp.ones_like(by.accu_right_shift) << by.accu_right_shift) >> 1)
        if not row.rounds:
            whole = whole + clip(compensation(by, xp), 0, 2**29, xp)
    if row.bias.bits == 32:
        whole = clip(whole, row.bias.min, row.bias.max, xp)
        return Bias(bias=whole, bias_left_shift=xp.zeros_like(whole))
    magnitude = xp.where(whole < 0, ~whole, whole)  # its bit length decides; ~v needs as many bits as v < 0
    _, length = xp.frexp(_float64(magnitude, xp))
    shift = clip(_int64(length, xp) - (row.bias.bits - 1), 0, _last(row.bias_left_shift), xp)
    return Bias(bias=clip(whole >> shift, row.bias.min, row.bias.max, xp), bias_left_shift=shift)


def smallest_weight_scale(
    x_scale: Array, row: MarchRow, *, bias: Array | None, residual_scale: Array | None, xp: Any = np
) -> Array:
    """Return the smallest weight scale with which bias and residual stay within the hardware's ranges.

    Both then stay below 2**29 accumulator units, as half an output step does, so that they and the accumulator of int8
    products fit 32 bits together.
    Only channels whose weights are nearly zero come near it; their weights then round to fewer levels, or to zero,
    where they contribute far less than a step of the output.
    """
    floor = x_scale * 0.0 + _SMALLEST
    factor = 2.0**22 if min(row.sumin_left_shift.allowed) < 0 else 32767.0 * 2.0 ** _last(row.sumin_left_shift)
    for amount, largest in ((bias, 2.0**29), (residual_scale, factor)):
        if amount is not None:
            needed = xp.abs(amount) / (x_scale * largest)
            floor = xp.where(needed > floor, needed, floor)
    return floor

"""Fixed-point rules: shifts, rounding, saturation and the requantizations, equation by equation of docs/numerics.md.

This is the only home of rounding. Every function works on numpy arrays and on torch tensors alike, since it is made of
Python's operators and of the few functions that both namespaces share; ``xp`` names the namespace. Arguments are
signed integer arrays that broadcast against each other, in a type wide enough for the products: int64 always is; int32
suffices for (1) once the accumulator fits it, because ``2**15 * 32767 + 2**30`` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .dtypes import QuantDType

__all__ = [
    "Array",
    "Multiplier",
    "compensation",
    "half",
    "requantize",
    "requantize_pool",
    "requantize_wide",
    "rescale",
    "saturate",
    "shift_left",
    "wrap32",
]

Array = Any
"""A numpy array or a torch tensor; ``Any`` because this package does not depend on torch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Multiplier:
    """A real multiplier ``M = output_scale * 2**-(accu_right_shift + output_right_shift)``.

    Every field is an integer array of length 1 (per tensor) or C (per channel).
    """

    accu_right_shift: Array
    """First shift; always floors."""
    output_scale: Array
    """15 bits, 0..32767."""
    output_right_shift: Array
    """Second shift; rounds or floors by march."""


def half(shift: Array, xp: Any = np) -> Array:
    """``2**(shift - 1)`` for shift > 0, and 0 for shift 0: what makes a floor shift round half up."""
    return (xp.ones_like(shift) << clip(shift - 1, 0, None, xp)) * (shift > 0)


def clip(value: Array, low: float | None, high: float | None, xp: Any = np) -> Array:
    """Clamp to ``low..high``, None for no bound; ``numpy.clip`` takes many times as long for a few numbers."""
    if xp is not np:
        return xp.clip(value, low, high)
    if low is not None:
        value = np.maximum(value, low)
    return value if high is None else np.minimum(value, high)


def saturate(value: Array, bits: int, xp: Any = np) -> Array:
    """Clamp to the range of a signed integer of so many bits."""
    return clip(value, -(1 << (bits - 1)), (1 << (bits - 1)) - 1, xp)


def wrap32(value: Array) -> Array:
    """Keep the low 32 bits of int64 values as a signed number."""
    return ((value + (1 << 31)) & 0xFFFF_FFFF) - (1 << 31)


def shift_left(value: Array, shift: Array, xp: Any = np) -> Array:
    """``shl`` of the notation: shift left, or floor shift right where ``shift`` is negative."""
    return (value << clip(shift, 0, 63, xp)) >> clip(-shift, 0, 63, xp)


def requantize(acc: Array, by: Multiplier, out: QuantDType, *, rounds: bool, xp: Any = np) -> Array:
    """Equation (1): floor shift, saturate to int16, multiply, shift, saturate.

    ``rounds``: half up at the second shift (Bayes), otherwise floor (Bernoulli2).
    """
    product = saturate(acc >> by.accu_right_shift, 16, xp) * by.output_scale
    if rounds:
        product = product + half(by.output_right_shift, xp)
    return saturate(product >> by.output_right_shift, out.bits, xp)


def requantize_wide(acc: Array, output_right_shift: Array, *, rounds: bool, xp: Any = np) -> Array:
    """Equation (2): the int32 output of a convolution; the accumulator is int64."""
    if rounds:
        acc = acc + half(output_right_shift, xp)
    return saturate(acc >> output_right_shift, 32, xp)


def compensation(by: Multiplier, xp: Any = np) -> Array:
    """Equation (11): ``floor(2**(a + r - 1) / m + 0.5)``, half an output step in accumulator units; 0 where m is 0.

    Evaluated as the integer quotient ``floor((2**(a + r) + m) / (2 * m))``, which is the same number.
    """
    wide = xp.zeros_like(by.output_scale, dtype=xp.int64)  # both shifts at their largest need 2**62
    scale = clip(by.output_scale, 1, None, xp) + wide
    exact = ((xp.ones_like(scale) << (by.accu_right_shift + by.output_right_shift)) + scale) // (2 * scale)
    return xp.where(by.output_scale > 0, exact, wide)


def requantize_pool(total: Array, by: Multiplier, *, rounds: bool, xp: Any = np) -> Array:
    """Equations (12), rounding half up at both shifts, and (13), compensated and flooring; to int8."""
    first = total + (half(by.accu_right_shift, xp) if rounds else compensation(by, xp))
    product = saturate(first >> by.accu_right_shift, 16, xp) * by.output_scale
    if rounds:
        product = product + half(by.output_right_shift, xp)
    return saturate(product >> by.output_right_shift, 8, xp)


def rescale(value: Array, by: Multiplier, out: QuantDType, *, rounds: bool, xp: Any = np) -> Array:
    """Equations (16), rounding half up, and (17), compensated and flooring; the first shift is not used.

    On Bernoulli2 an identity multiplier gives ``value + 1``; emit no rescale where none is needed.
    """
    if rounds:
        product = value * by.output_scale + half(by.output_right_shift, xp)
    else:
        product = (value + compensation(by, xp)) * by.output_scale
    return saturate(product >> by.output_right_shift, out.bits, xp)

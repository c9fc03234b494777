"""scale_from_range: the one formula, against exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bpu_qconfig import SMALLEST_SCALE, InvalidQConfigError, scale_from_range
from bpu_qconfig.scale import amplitude_from_scale, positive_scale

ENDS = st.floats(-(2.0**100), 2.0**100, width=32)


def nearest_float32(value: Fraction) -> np.float32:
    """Round to nearest, ties to even, by integer arithmetic."""
    if value == 0:
        return np.float32(0)
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    while Fraction(2) ** exponent > value:
        exponent -= 1
    while Fraction(2) ** (exponent + 1) <= value:
        exponent += 1
    unit = Fraction(2) ** (exponent - 23)
    return np.float32(float(round(value / unit) * unit))


@pytest.mark.parametrize("dtype", ["qint8", "qint16"])
@given(low=ENDS, high=ENDS)
def test_scale_is_twice_the_amplitude_over_the_steps_correctly_rounded(dtype: str, low: float, high: float) -> None:
    """The formula: scale = 2 * max|x| / (quant_max - quant_min), one rounding."""
    steps = {"qint8": 255, "qint16": 65535}[dtype]
    exact = nearest_float32(2 * Fraction(max(abs(low), abs(high))) / steps)
    got = scale_from_range(torch.tensor(low), torch.tensor(high), dtype)
    assert got.dtype == torch.float32
    assert got.item() == max(exact, SMALLEST_SCALE)


def test_scale_uses_narrowed_limits() -> None:
    assert scale_from_range(torch.tensor(-127.0), torch.tensor(1.0), "qint8", quant_min=-127).item() == 1.0


@pytest.mark.parametrize("shape", [(), (1,), (3,)])
def test_scale_of_zeros_is_the_smallest(shape: tuple[int, ...]) -> None:
    zeros = torch.zeros(shape)
    assert torch.equal(scale_from_range(zeros, zeros), torch.full(shape, SMALLEST_SCALE))


def test_product_of_two_smallest_scales_is_a_normal_float32() -> None:
    assert torch.finfo(torch.float32).tiny <= SMALLEST_SCALE**2


@given(scale=st.floats(2.0**-39, 2.0**60, width=32))
def test_scale_returns_from_its_amplitude_within_one_unit(scale: float) -> None:
    amplitude = amplitude_from_scale(torch.tensor([scale]), -128, 127)
    back = scale_from_range(-amplitude, amplitude).numpy()
    assert abs(back - np.float32(scale)) <= np.spacing(np.float32(scale))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), [1.0, 0.0], []])
def test_positive_scale_refuses(scale: float | list[float]) -> None:
    with pytest.raises(InvalidQConfigError, match="expected a positive finite scale"):
        positive_scale(scale)

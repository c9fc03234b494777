"""From the range of a tensor to its scale: the only place where scales are computed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bpu_kernels.dtypes import quant_dtype

from .errors import InvalidQConfigError

__all__ = ["SMALLEST_SCALE", "amplitude_from_scale", "positive_scale", "scale_from_amplitude", "scale_from_range"]

SMALLEST_SCALE = 2.0**-40
"""The scale of a range of zeros, and the floor of all others.

The product of two such scales, the scale of an accumulator, is still a normal float32. At int8 the floor acts on ranges
below 1.2e-10, at int16 below 3e-8.
"""


def scale_from_range(
    min_val: Tensor,
    max_val: Tensor,
    dtype: object = "qint8",
    *,
    quant_min: int | None = None,
    quant_max: int | None = None,
) -> Tensor:
    """Return ``2 * max(|min_val|, |max_val|) / (quant_max - quant_min)``, the symmetric scale of a range.

    The quotient is one correctly rounded float32 division on every device, so a range has the same scale everywhere.

    Args:
        min_val: smallest values, any shape.
        max_val: largest values, of the same shape.
        dtype: the quantized type; it gives the limits that are not given.
        quant_min: smallest integer used.
        quant_max: largest integer used.

    Returns:
        float32 of the same shape, at least ``SMALLEST_SCALE``. The zero point that belongs to it is 0.

    >>> scale_from_range(torch.tensor(-1.0), torch.tensor(0.5), quant_min=-127)
    tensor(0.0079)
    """
    limits = quant_dtype(dtype)
    low = limits.min if quant_min is None else quant_min
    high = limits.max if quant_max is None else quant_max
    return scale_from_amplitude(torch.maximum(min_val.abs(), max_val.abs()).to(torch.float32), low, high)


def scale_from_amplitude(amplitude: Tensor, quant_min: int, quant_max: int) -> Tensor:
    """Return ``scale_from_range(-amplitude, amplitude)``; both are of one floating-point type."""
    # The divisor is a tensor because CUDA multiplies by the rounded inverse of a Python number.
    steps = torch.full_like(amplitude, quant_max - quant_min)
    return (2.0 * amplitude / steps).clamp(min=SMALLEST_SCALE)


def amplitude_from_scale(scale: Tensor, quant_min: int, quant_max: int) -> Tensor:
    """Return the largest ``|x|`` of the symmetric range whose scale this is; the inverse of ``scale_from_amplitude``.

    Two float32 roundings lie between them, so going there and back can end one unit in the last place away.
    """
    return scale * ((quant_max - quant_min) / 2.0)


def positive_scale(scale: float | Sequence[float] | Tensor) -> Tensor:
    """Return a given scale as a float32 tensor of shape [1] or [channels].

    Raises:
        InvalidQConfigError: it is not positive and finite.
    """
    checked = torch.as_tensor(scale).detach().to(torch.float32).reshape(-1).clone()
    if not checked.numel() or not bool((torch.isfinite(checked) & (checked > 0)).all()):
        raise InvalidQConfigError(f"expected a positive finite scale, got {scale!r}")
    return checked

"""Colour conversion from centred YUV to normalised RGB as a 1 x 1 convolution; BT.601, exact rational coefficients.

The standard defines luma by Kr = 0.299 and Kb = 0.114. With full swing the inverse is R = Y + 2(1 - Kr) V,
B = Y + 2(1 - Kb) U, and G follows from Y = Kr R + Kg G + Kb B. Studio swing scales luma by 255/219 and chroma by
255/224, and puts black at 16.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from ..dtypes import qint8
from ..errors import BpuKernelsError
from ..fixed_point import Multiplier
from ..march import MarchRow
from ..multiplier import Bias, choose_bias, choose_multiplier
from .conv import Conv2d

__all__ = ["centered_yuv_to_rgb", "rgb_to_yuv_matrix", "yuv_to_rgb_matrix"]

KR, KB = Fraction(299, 1000), Fraction(114, 1000)
KG = 1 - KR - KB

Matrix = tuple[tuple[Fraction, Fraction, Fraction], ...]


def _swing(swing: str) -> tuple[Fraction, Fraction, int]:
    """Return what one step of 8-bit luma and chroma means in full-swing steps, and the luma of black."""
    if swing == "full":
        return Fraction(1), Fraction(1), 0
    if swing == "studio":
        return Fraction(255, 219), Fraction(255, 224), 16
    raise BpuKernelsError(f"swing must be 'studio' or 'full', got {swing!r}")


def yuv_to_rgb_matrix(swing: str) -> tuple[Matrix, Fraction]:
    """Return the matrix from (Y - black, U - 128, V - 128) to RGB 0..255, and the luma of black."""
    luma, chroma, black = _swing(swing)
    to_red, to_blue = 2 * (1 - KR) * chroma, 2 * (1 - KB) * chroma
    zero = Fraction(0)
    return (
        (luma, zero, to_red),
        (luma, -KB / KG * to_blue, -KR / KG * to_red),
        (luma, to_blue, zero),
    ), Fraction(black)


def rgb_to_yuv_matrix(swing: str) -> tuple[Matrix, Fraction]:
    """Return the matrix from RGB 0..255 to (Y - black, U - 128, V - 128), and the luma of black."""
    luma, chroma, black = _swing(swing)
    y = (KR, KG, KB)
    blue, red = 2 * (1 - KB) * chroma, 2 * (1 - KR) * chroma
    unit = ((0, 0, 1), (1, 0, 0))
    u, v = (
        tuple((Fraction(e) - k) / scale for e, k in zip(axis, y, strict=True))
        for axis, scale in zip(unit, (blue, red), strict=True)
    )
    first = tuple(k / luma for k in y)
    return ((first[0], first[1], first[2]), (u[0], u[1], u[2]), (v[0], v[1], v[2])), Fraction(black)


def _int8_row(row: Sequence[Fraction]) -> tuple[list[int], Fraction]:
    """Return int8 numbers nearly proportional to a row, and their real size: the best of all sizes that fit."""
    largest = max(abs(c) for c in row)
    best: tuple[Fraction, list[int], Fraction] | None = None
    for peak in range(64, 128):
        scale = largest / peak
        whole = [round(c / scale) for c in row]
        error = sum((abs(w * scale - c) for w, c in zip(whole, row, strict=True)), Fraction(0))
        if best is None or error < best[0]:
            best = (error, whole, scale)
    assert best is not None
    return best[1], best[2]


def centered_yuv_to_rgb(
    row: MarchRow, *, swing: str, mean: Sequence[float], std: Sequence[float], q_scale: float, bgr: bool = False
) -> Conv2d:
    """Return the convolution from centred YUV (int8, scale 1) to ``(rgb - mean) / std`` quantized by ``q_scale``.

    The int8 weights of a row are searched for the size at which they come nearest to the exact coefficients; the result
    then differs from the rounded exact value by at most one step.

    Args:
        row: the march.
        swing: "studio" (Y 16..235, U and V 16..240) or "full" (0..255).
        mean: of R, G, B in 0..255; one value or three.
        std: of R, G, B; one value or three.
        q_scale: scale of the output, real units per step.
        bgr: output channels in the order B, G, R; mean and std are in the order of the output.
    """
    matrix, black = yuv_to_rgb_matrix(swing)
    order = (2, 1, 0) if bgr else (0, 1, 2)
    means, stds = (list(map(float, v)) * (3 if len(v) == 1 else 1) for v in (mean, std))
    if len(means) != 3 or len(stds) != 3 or min(stds) <= 0 or q_scale <= 0:
        raise BpuKernelsError(
            f"expected 1 or 3 means, 1 or 3 positive stds, positive q_scale; got {mean}, {std}, {q_scale}"
        )
    rows = [_int8_row(matrix[channel]) for channel in order]
    unit = np.array([float(size) for _, size in rows])  # RGB levels per accumulator unit
    offset = float((128 - black) * matrix[0][0])  # RGB level of a centred luma of 0
    weight = np.array([whole for whole, _ in rows], np.int8).reshape(3, 1, 1, 3)
    bias = (offset - np.array(means)) / unit
    bound = np.abs(weight.astype(np.float64)).sum(axis=(1, 2, 3)) * 128 + np.abs(bias)
    multiplier = choose_multiplier(unit / (np.array(stds) * q_scale), bound, qint8, row)
    stored = choose_bias(bias, multiplier, row)
    return Conv2d(
        weight=weight,
        bias=Bias(bias=stored.bias.astype(np.int32), bias_left_shift=stored.bias_left_shift.astype(np.int32)),
        multiplier=Multiplier(**{name: value.astype(np.int32) for name, value in vars(multiplier).items()}),
    )

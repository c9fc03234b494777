"""Colour conversion: exact matrices, and the error bound of the integer convolution over every colour."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from bpu_kernels import BpuKernelsError, March, TensorSpec, march_row, qint8
from bpu_kernels.ops.color import centered_yuv_to_rgb, rgb_to_yuv_matrix, yuv_to_rgb_matrix

SWINGS = ["studio", "full"]


@pytest.mark.parametrize("swing", SWINGS)
def test_the_two_matrices_are_inverse_exactly(swing: str) -> None:
    (forward, black), (back, black_again) = yuv_to_rgb_matrix(swing), rgb_to_yuv_matrix(swing)
    assert black == black_again
    for i, row in enumerate(forward):
        product = [sum((row[k] * back[k][j] for k in range(3)), Fraction(0)) for j in range(3)]
        assert product == [Fraction(i == j) for j in range(3)]


@pytest.mark.parametrize(
    ("swing", "white", "red"),
    [
        ("full", (255, 0, 0), (Fraction(299 * 255, 1000), 128)),
        ("studio", (219, 0, 0), (Fraction(299 * 219, 1000), 112)),
    ],
)
def test_white_and_red_have_the_values_of_the_standard(
    swing: str, white: tuple[int, int, int], red: tuple[Fraction, int]
) -> None:
    """BT.601: white has the largest luma and no chroma; red has luma Kr and the largest V."""
    matrix, black = rgb_to_yuv_matrix(swing)
    assert black == (0 if swing == "full" else 16)
    assert tuple(255 * sum(row) for row in matrix) == white
    assert (255 * matrix[0][0], 255 * matrix[2][0]) == (red[0], Fraction(255, 2) if swing == "full" else red[1])


def test_studio_coefficients_are_the_known_decimals() -> None:
    matrix, _ = yuv_to_rgb_matrix("studio")
    rounded = [[round(float(c), 3) for c in row] for row in matrix]
    assert rounded == [[1.164, 0.0, 1.596], [1.164, -0.392, -0.813], [1.164, 2.017, 0.0]]


def largest_error(
    swing: str, march: str, mean: list[float], std: list[float], q_scale: float, *, bgr: bool, stride: int
) -> float:
    """Return the largest distance from the exact value over colours, every one for stride 1."""
    kernel = centered_yuv_to_rgb(march_row(march), swing=swing, mean=mean, std=std, q_scale=q_scale, bgr=bgr)
    matrix, black = yuv_to_rgb_matrix(swing)
    rows = [matrix[i] for i in ((2, 1, 0) if bgr else (0, 1, 2))]
    level = np.arange(-128, 128, stride, dtype=np.int16).astype(np.int8)
    u, v = (chroma.ravel() for chroma in np.meshgrid(level, level))
    worst = 0.0
    for luma in level:
        x = np.stack([np.full_like(u, luma), u, v], 1)
        got = kernel.run(march_row(march), x[None, None])[0, 0]
        for channel, row in enumerate(rows):
            exact = float(row[0]) * (int(luma) + 128 - float(black)) + float(row[1]) * u + float(row[2]) * v
            real = (exact - mean[channel]) / (std[channel] * q_scale)
            worst = max(worst, float(np.abs(got[:, channel] - np.clip(real, -128, 127)).max()))
    return worst


@pytest.mark.slow
@pytest.mark.parametrize("swing", SWINGS)
def test_default_conversion_is_within_six_tenths_of_a_step_for_each_of_2_to_the_24_colours(swing: str) -> None:
    """Less than one step from the exact value, hence at most one from the rounded exact value."""
    assert largest_error(swing, "bayes", [128.0] * 3, [128.0] * 3, 1 / 128, bgr=False, stride=1) < 0.6


NORMALIZATIONS = {
    "default": ([128.0] * 3, [128.0] * 3, 1 / 128),
    "ImageNet": ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], 2.64 / 127),
    "unit": ([0.0] * 3, [255.0] * 3, 1 / 127),
    "coarse": ([128.0] * 3, [128.0] * 3, 1 / 20),
}


@pytest.mark.parametrize("march", [march.value for march in March])
@pytest.mark.parametrize("bgr", [False, True], ids=["rgb", "bgr"])
@pytest.mark.parametrize(("mean", "std", "q_scale"), NORMALIZATIONS.values(), ids=NORMALIZATIONS)
@pytest.mark.parametrize("swing", SWINGS)
def test_conversion_is_within_six_tenths_of_a_step(
    swing: str, mean: list[float], std: list[float], q_scale: float, bgr: bool, march: str
) -> None:
    order = slice(None, None, -1) if bgr else slice(None)
    assert largest_error(swing, march, mean[order], std[order], q_scale, bgr=bgr, stride=15) < 0.6


def test_the_kernel_runs_on_every_march() -> None:
    for march in March:
        row = march_row(march)
        kernel = centered_yuv_to_rgb(row, swing="studio", mean=(128.0,), std=(128.0,), q_scale=1 / 128)
        assert kernel.problems(row, TensorSpec((1, 32, 32, 3), qint8)) == []


BAD = {
    "swing": ({"swing": "tv"}, "swing must be"),
    "two means": ({"mean": (1.0, 2.0)}, "1 or 3 means"),
    "no std": ({"std": (0.0,)}, "positive"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_bad_arguments_are_refused(changes: dict[str, Any], message: str) -> None:
    arguments = {"swing": "full", "mean": (128.0,), "std": (128.0,), "q_scale": 1 / 128, **changes}
    with pytest.raises(BpuKernelsError, match=message):
        centered_yuv_to_rgb(march_row("bayes"), **arguments)

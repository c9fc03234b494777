"""NV12 and YUV444 as the model sees them."""

from __future__ import annotations

import numpy as np
import pytest

from bpu_kernels import InvalidProgramError
from bpu_kernels.ops.input import center_yuv444, nv12_to_yuv444
from bpu_kernels.testing import assert_integers_equal


@pytest.mark.parametrize(("height", "width"), [(2, 2), (4, 6), (8, 2)])
def test_nv12_repeats_chroma_and_centres(height: int, width: int) -> None:
    """(30), pixel by pixel: Y, then interleaved U and V of the 2 x 2 block."""
    image = np.random.default_rng(height).integers(0, 256, (2, height * width * 3 // 2)).astype(np.uint8)
    expected = np.zeros((2, height, width, 3), np.int8)
    for n, i, j in np.ndindex(2, height, width):
        chroma = height * width + (i // 2) * width + (j // 2) * 2
        expected[n, i, j] = [int(image[n, k]) - 128 for k in (i * width + j, chroma, chroma + 1)]
    assert_integers_equal(nv12_to_yuv444(image, height, width), expected)


def test_centring_covers_every_byte() -> None:
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(-1, 3)
    assert center_yuv444(every)[:, 0].tolist() == list(range(-128, 128))


BAD = {
    "odd height": (3, 2, np.uint8, 9),
    "odd width": (2, 3, np.uint8, 9),
    "int8": (2, 2, np.int8, 6),
    "cut": (2, 2, np.uint8, 5),
}


@pytest.mark.parametrize(("height", "width", "dtype", "count"), BAD.values(), ids=BAD)
def test_what_is_no_nv12_is_refused(height: int, width: int, dtype: type, count: int) -> None:
    with pytest.raises(InvalidProgramError, match="expected NV12"):
        nv12_to_yuv444(np.zeros(count, dtype), height, width)


def test_what_is_no_yuv444_is_refused() -> None:
    with pytest.raises(InvalidProgramError, match="expected uint8"):
        center_yuv444(np.zeros((2, 2), np.uint8))

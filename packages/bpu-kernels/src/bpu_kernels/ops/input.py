"""What the model sees of an image: NV12 from pyramid or resizer, and YUV444, centred to int8 (30)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidProgramError
from ..kernel import IntArray

__all__ = ["center_yuv444", "nv12_to_yuv444"]


def nv12_to_yuv444(image: NDArray[np.uint8], height: int, width: int) -> IntArray:
    """Turn NV12 bytes into the centred int8 tensor of the pyramid.

    Args:
        image: uint8, ``height * width`` luma bytes, then ``height * width / 2`` bytes U, V, U, V at half resolution; of
            any shape, or batched as (N, that many).
        height: even number of rows.
        width: even number of columns.

    Returns:
        int8 (N, height, width, 3): Y - 128, U - 128, V - 128, chroma repeated 2 x 2.
    """
    expected = height * width * 3 // 2
    if height % 2 or width % 2 or image.dtype != np.uint8 or image.size % expected:
        raise InvalidProgramError(
            f"expected NV12 as uint8 of a multiple of {expected} bytes for an even size {height}x{width}, "
            f"got {image.dtype} with {image.size} elements"
        )
    frames = image.reshape(-1, expected)
    luma = frames[:, : height * width].reshape(-1, height, width, 1)
    chroma = frames[:, height * width :].reshape(-1, height // 2, width // 2, 2)
    return center_yuv444(np.concatenate([luma, chroma.repeat(2, axis=1).repeat(2, axis=2)], axis=3))


def center_yuv444(image: NDArray[np.uint8]) -> IntArray:
    """Subtract 128 from every byte of a YUV444 image (..., 3), giving int8."""
    if image.dtype != np.uint8 or image.shape[-1:] != (3,):
        raise InvalidProgramError(f"expected uint8 (..., 3), got {image.dtype} {image.shape}")
    return (image ^ 0x80).view(np.int8)

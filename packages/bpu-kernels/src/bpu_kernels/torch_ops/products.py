"""Convolution and its transpose as matrix products of windows, which no library computes in any other way."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.conv import Conv2d
from ..ops.conv_transpose import ConvTranspose2d

__all__ = ["convolution_of_windows", "transposed_of_windows"]

CHUNK_BYTES = 2**28
"""Images go together as long as their windows need no more than this."""


def convolution_of_windows(kernel: Conv2d, x: Tensor, weight: Tensor) -> Tensor:
    """Return the sums of a convolution.

    Args:
        kernel: its stride, padding, dilation and groups count.
        x: floating, N, C, H, W.
        weight: of x's type, O, C / groups, kernel.
    """
    outputs, groups, window = weight.shape[0], kernel.groups, weight.shape[2:]
    reach = zip(x.shape[2:], window, kernel.stride, kernel.pad, kernel.dilation, strict=True)
    size = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in reach]
    left = weight.reshape(groups, outputs // groups, -1)

    def convolve(part: Tensor) -> Tensor:
        windows = F.unfold(part, tuple(window), kernel.dilation, kernel.pad, kernel.stride)
        sums = left @ windows.reshape(len(part), groups, left.shape[-1], -1)
        return sums.reshape(len(part), outputs, *size)

    return _in_chunks(convolve, x, x.shape[1] * prod(window) * prod(size))


def transposed_of_windows(kernel: ConvTranspose2d, x: Tensor, weight: Tensor) -> Tensor:
    """Return the sums of a transposed convolution.

    Args:
        kernel: its stride, padding, output padding and groups count.
        x: floating, N, C, H, W.
        weight: of x's type, C, O / groups, kernel.
    """
    channels, groups, window = x.shape[1], kernel.groups, weight.shape[2:]
    reach = zip(x.shape[2:], window, kernel.stride, kernel.pad, kernel.output_padding, strict=True)
    size = [(n - 1) * s - 2 * p + k + more for n, k, s, p, more in reach]
    left = weight.reshape(groups, channels // groups, -1).mT

    def scatter(part: Tensor) -> Tensor:
        windows = left @ part.reshape(len(part), groups, channels // groups, -1)
        return F.fold(windows.flatten(1, 2), tuple(size), tuple(window), 1, kernel.pad, kernel.stride)

    return _in_chunks(scatter, x, left.shape[0] * left.shape[1] * prod(x.shape[2:]))


def _in_chunks(compute: Callable[[Tensor], Tensor], x: Tensor, elements: int) -> Tensor:
    """Compute so many images at a time that their windows, of so many elements each, stay within bounds."""
    count = max(1, CHUNK_BYTES // max(1, elements * x.element_size()))
    return compute(x) if count >= len(x) else torch.cat([compute(part) for part in torch.split(x, count)])

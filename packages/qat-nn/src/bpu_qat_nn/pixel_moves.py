"""Pixels moved into channels and back: transposes, or convolutions that copy where a march transposes nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bpu_kernels.dtypes import qint8
from bpu_kernels.fields import map_arrays
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.kernel import Kernel
from bpu_kernels.march import MarchRow
from bpu_kernels.multiplier import choose_multiplier
from bpu_kernels.ops.conv import Conv2d
from bpu_kernels.ops.conv_transpose import ConvTranspose2d

__all__ = ["channel_shuffle", "pixel_shuffle", "pixel_unshuffle"]


def pixel_shuffle(x: Any, upscale_factor: int) -> Any:
    """(N, C r r, H, W) -> (N, C, H r, W r)."""
    n, c, h, w = x.shape
    r = upscale_factor
    if _must_convolve(x):
        weight = _one_of_each(c, r).permute(0, 2, 3, 1)  # input, kernel, output
        return _copied(x, ConvTranspose2d(weight=weight, multiplier=_multiplier(c // (r * r), x.row), stride=(r, r)))
    return x.reshape(n, c // (r * r), r, r, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // (r * r), h * r, w * r)


def pixel_unshuffle(x: Any, downscale_factor: int) -> Any:
    """(N, C, H r, W r) -> (N, C r r, H, W)."""
    n, c, h, w = x.shape
    r = downscale_factor
    if _must_convolve(x):
        weight = _one_of_each(c * r * r, r).permute(0, 2, 3, 1)  # output, kernel, input
        return _copied(
            x, Conv2d(weight=weight, multiplier=_multiplier(c * r * r, x.row), stride=(r, r), out_dtype=qint8)
        )
    return x.reshape(n, c, h // r, r, w // r, r).permute(0, 1, 3, 5, 2, 4).reshape(n, c * r * r, h // r, w // r)


def channel_shuffle(x: Any, groups: int) -> Any:
    """(N, g C, ...) -> (N, C g, ...), channel by channel where a march transposes nothing."""
    n, c, *space = x.shape
    if not getattr(x, "transposes", True):
        return x.index_select(1, torch.arange(c, device=x.scale.device).reshape(groups, -1).T.flatten())
    return x.reshape(n, groups, c // groups, *space).transpose(1, 2).reshape(n, c, *space)


def _must_convolve(x: Any) -> bool:
    """Whether a tensor is of a Program whose march transposes nothing; wide integers no convolution takes."""
    return not getattr(x, "transposes", True) and x.dtype is qint8


def _one_of_each(channels: int, factor: int) -> Tensor:
    """Return int8 (C r r, C, r, r): 1 where a channel on one side is that pixel of the channel on the other."""
    eye = torch.eye(channels, dtype=torch.int8)
    return eye.reshape(channels, channels // (factor * factor), factor, factor)


def _multiplier(channels: int, row: MarchRow) -> Multiplier:
    """Return the multiplier 1, with which no shift drops a bit of a sum of one step by 1."""
    one = torch.ones(channels, dtype=torch.float64)
    chosen = choose_multiplier(one, -qint8.min * one, qint8, row, xp=torch)
    stored: Multiplier = map_arrays(chosen, lambda _, each: each.int())
    return stored


def _copied(x: Any, kernel: Kernel) -> Any:
    return x.invoke(kernel, x.row, x, scale=x.scale, dtype=x.dtype)

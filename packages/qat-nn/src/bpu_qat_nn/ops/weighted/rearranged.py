"""Convolutions beyond the hardware's limits that are within them after pixels have been rearranged.

A convolution whose stride is its kernel, as in patch embeddings, is a 1 x 1 convolution of patches seen as channels. A
dilated convolution is one of smaller dilation on every f-th pixel, for each of the f x f phases, which become batches.
A stride that the hardware has not together with dilation is picked from the result of stride 1. All of it moves
integers only, so the result is the one of the convolution itself.
"""

from __future__ import annotations

from typing import Any

from bpu_kernels.march import MarchRow
from bpu_kernels.ops.layout import Pad

from ...qtensor import QTensor

__all__ = ["by_patches", "from_phases", "phases_of", "picks", "to_patches", "to_phases"]


def picks(layer: Any) -> bool:
    """Whether the stride is picked from the result of stride 1.

    That is so for a dilated convolution, and in three dimensions where the strides differ.
    """
    uneven = len(layer.stride) == 3 and len(set(layer.stride)) > 1
    return uneven or (max(layer.dilation) > 1 and max(layer.stride) > 1)


def by_patches(layer: Any, row: MarchRow) -> bool:
    """Whether a convolution of patches that do not overlap is too large for the hardware."""
    kernel, stride = tuple(layer.kernel_size), tuple(layer.stride)
    if len(kernel) != 2 or kernel != stride or layer.groups != 1 or max(layer.dilation) > 1:
        return False
    padded = isinstance(layer.padding, str) or max(layer.padding) > 0
    fits = all(k in row.kernel and k in row.stride for k in kernel)
    return row.moves_freely and not padded and not fits


def to_patches(x: Any, kernel: tuple[int, int]) -> QTensor:
    """(N, C, H, W) -> (N, kh kw C, H / kh, W / kw); what is left at the border is dropped."""
    (kh, kw), (n, c, h, w) = kernel, x.shape
    x = x[:, :, : h // kh * kh, : w // kw * kw].reshape([n, c, h // kh, kh, w // kw, kw])
    patches: QTensor = x.permute(0, 3, 5, 1, 2, 4).reshape([n, kh * kw * c, h // kh, w // kw])
    return patches


def phases_of(layer: Any, row: MarchRow) -> tuple[int, int]:
    """Return into how many phases height and width are split, (1, 1) where the dilation is within the limits."""
    if len(layer.dilation) != 2 or not row.moves_freely or isinstance(layer.padding, str):
        return (1, 1)
    high, wide = (_factor(dilation, row) for dilation in layer.dilation)
    return (high, wide)


def _factor(dilation: int, row: MarchRow) -> int:
    factors = (factor for factor in range(1, dilation + 1) if dilation % factor == 0)
    return next(factor for factor in factors if dilation // factor in row.dilation)


def to_phases(x: Any, pad: tuple[int, int], phases: tuple[int, int], row: MarchRow) -> QTensor:
    """Pad a map, and turn its phases into batches: (N, C, H, W) -> (N fh fw, C, H / fh, W / fw)."""
    after = [p + -(int(n) + 2 * p) % f for n, p, f in zip(x.shape[2:], pad, phases, strict=True)]
    padding = Pad(before=(0, 0, *pad), after=(0, 0, *after))
    y = x.invoke(padding, row, x, scale=x.scale, dtype=x.dtype)
    (fh, fw), (n, c, h, w) = phases, y.shape
    y = y.reshape([n, c, h // fh, fh, w // fw, fw]).permute(0, 3, 5, 1, 2, 4)
    split: QTensor = y.reshape([n * fh * fw, c, h // fh, w // fw])
    return split


def from_phases(y: Any, phases: tuple[int, int], size: tuple[int, int]) -> QTensor:
    """Put phases back in their places and cut to a size."""
    (fh, fw), (n, c, h, w) = phases, y.shape
    y = y.reshape([n // (fh * fw), fh, fw, c, h, w]).permute(0, 3, 4, 1, 5, 2)
    joined: QTensor = y.reshape([n // (fh * fw), c, h * fh, w * fw])[:, :, : size[0], : size[1]]
    return joined

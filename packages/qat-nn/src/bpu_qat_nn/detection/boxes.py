"""Boxes (left, top, right, bottom) in pixels: overlap, clipping, sizes, and decoding from what a head regresses."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["clipped", "decoded", "large_enough", "overlap"]

LARGEST_LOG_RATIO = math.log(1000 / 16)
"""Widths and heights grow by at most this exponent, as in Faster R-CNN: larger ones only overflow."""


def overlap(left: Tensor, right: Tensor) -> Tensor:
    """Return intersection over union of all pairs; 0 where both boxes are empty.

    Args:
        left: [n, 4].
        right: [m, 4].

    Returns:
        [n, m], in 0..1.
    """
    begin, end = torch.maximum(left[:, None, :2], right[:, :2]), torch.minimum(left[:, None, 2:], right[:, 2:])
    common = (end - begin).clamp(min=0).prod(-1)
    both = _area(left)[:, None] + _area(right) - common
    return torch.where(both > 0, common / both, torch.zeros_like(both))


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def clipped(boxes: Tensor, height: float, width: float) -> Tensor:
    """Return boxes [..., 4] inside an image."""
    across, down = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack((across[..., 0], down[..., 0], across[..., 1], down[..., 1]), -1)


def large_enough(boxes: Tensor, height: float, width: float) -> Tensor:
    """Return which boxes [n, 4] have at least this height and width."""
    return (boxes[:, 3] - boxes[:, 1] >= height) & (boxes[:, 2] - boxes[:, 0] >= width)


def decoded(regressions: Tensor, anchors: Tensor, *, in_pixels: bool = False) -> Tensor:
    """Return the boxes that a head means, by the rule of R-CNN (arXiv 1311.2524, appendix C).

    Args:
        regressions: [..., 4]: shift of the middle (x, y), logarithm of the growth of width and height.
        anchors: [..., 4], what they refer to.
        in_pixels: whether the shift is in pixels; otherwise it is in widths and heights of the anchor.
    """
    size = anchors[..., 2:] - anchors[..., :2]
    shift = regressions[..., :2] if in_pixels else regressions[..., :2] * size
    middle = anchors[..., :2] + 0.5 * size + shift
    half = 0.5 * size * regressions[..., 2:].clamp(max=LARGEST_LOG_RATIO).exp()
    return torch.cat((middle - half, middle + half), -1)

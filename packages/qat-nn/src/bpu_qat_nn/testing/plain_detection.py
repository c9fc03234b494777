"""Detection in plain loops over numbers of numpy: what the vectorized forms are held to."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["clipped", "decoded", "overlap", "suppressed"]

Array = NDArray[np.float64]
Box = Sequence[float]
"""Left, top, right, bottom."""


def overlap(a: Box, b: Box) -> float:
    """Return intersection over union; 0 of two empty boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0.0) * max(height, 0.0)
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    return common / both if both > 0 else 0.0


def suppressed(
    boxes: Array, scores: Array, threshold: float, groups: Array | None = None, margin: float = 0.0
) -> list[int]:
    """Return the indices that stay, greedily: the best of those left removes what it overlaps."""
    left = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    kept = []
    while left:
        best, *left = left
        kept.append(best)
        left = [
            i
            for i in left
            if overlap(boxes[best], boxes[i]) <= threshold
            or (groups is not None and groups[i] != groups[best])
            or (margin > 0 and scores[best] - scores[i] <= margin)
        ]
    return kept


def decoded(regression: Sequence[float], anchor: Box, *, in_pixels: bool = False) -> list[float]:
    """Return the box that four regressed numbers mean, by the rule of R-CNN."""
    dx, dy, dw, dh = (float(each) for each in regression)
    width, height = anchor[2] - anchor[0], anchor[3] - anchor[1]
    x = anchor[0] + width / 2 + (dx if in_pixels else dx * width)
    y = anchor[1] + height / 2 + (dy if in_pixels else dy * height)
    most = math.log(1000 / 16)
    w, h = width * math.exp(min(dw, most)), height * math.exp(min(dh, most))
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def clipped(box: Box, height: float, width: float) -> list[float]:
    """Return a box inside an image."""
    limits = (width, height, width, height)
    return [min(max(value, 0.0), limit) for value, limit in zip(box, limits, strict=True)]

"""What a head predicts, as maps or as lists of anchors, brought to one row per anchor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .real_values import real

__all__ = ["Detections", "anchor_rows", "highest", "image_size_of", "rows"]

Detections = tuple[Tensor, Tensor, Tensor]
"""Of one image: boxes [n, 4], scores [n], classes [n] (int64), highest score first."""


def rows(x: Tensor, anchors: int) -> Tensor:
    """Return predictions as [N, anchors, values].

    Args:
        x: a map [N, A * values, H, W] whose channels hold all values of the first anchor of a place, then those of the
            second; or [N, anchors, values]; or [anchors, values] for all images.
        anchors: of this level, A * H * W of them; places row by row, at each of them its anchors.

    Raises:
        InputError: predictions for another number of anchors.
    """
    values = real(x)
    if values.dim() == 4:
        batch, channels, height, width = values.shape
        each = anchors // max(height * width, 1)
        if each * height * width == anchors and each and channels % each == 0:
            by_place = values.reshape(batch, each, channels // each, height, width).permute(0, 3, 4, 1, 2)
            return by_place.reshape(batch, anchors, channels // each)
    listed = values[None] if values.dim() == 2 else values
    if listed.dim() != 3 or listed.shape[1] != anchors:
        raise InputError(
            f"expected predictions for {anchors} anchors, [N, A * values, H, W] or [N, anchors, values], got the shape "
            f"{tuple(x.shape)}"
        )
    return listed


def anchor_rows(x: Tensor) -> Tensor:
    """Return anchors, [N or 1, A * 4, H, W] or [N, anchors, 4] or [anchors, 4], as [N or 1, anchors, 4]."""
    found = rows(x, x.shape[1] // 4 * x.shape[2] * x.shape[3] if x.dim() == 4 else x.shape[-2])
    if found.shape[-1] != 4:
        raise InputError(f"expected anchors of four numbers, got the shape {tuple(x.shape)}")
    return found


def highest(scores: Tensor, count: int | None) -> Tensor:
    """Return the places of the highest scores in order, equal ones in theirs; of all of them without a count."""
    return scores.argsort(descending=True, stable=True)[:count]


def image_size_of(
    image: int, fixed: Sequence[int] | None, given: Tensor | Sequence[Sequence[int]] | None
) -> tuple[float, float] | None:
    """Return height and width of an image: what the call gives, one row for all or one each, or else what is fixed."""
    if given is None:
        return None if fixed is None else (float(fixed[0]), float(fixed[1]))
    sizes = torch.as_tensor(given).reshape(-1, 2)
    height, width = sizes[image if len(sizes) > 1 else 0].tolist()
    return float(height), float(width)

"""Non-maximum suppression: of boxes that overlap, the one with the highest score stays."""

from __future__ import annotations

import torch
from torch import Tensor

from .boxes import overlap

__all__ = ["non_maximum_suppression"]

BLOCK = 1024
"""Boxes that are compared with each other at once; bounds the memory at BLOCK times the boxes that stay."""


def non_maximum_suppression(
    boxes: Tensor, scores: Tensor, threshold: float, *, groups: Tensor | None = None, margin: float = 0.0
) -> Tensor:
    """Return the indices of the boxes that stay, highest score first; of equal scores, the first box.

    A box goes if one that stays comes before it and overlaps it by more than the threshold. What is computed is what
    ``torchvision.ops.nms`` computes, and with groups, ``batched_nms``.

    Args:
        boxes: [n, 4].
        scores: [n].
        threshold: intersection over union, in 0..1.
        groups: [n] integers; boxes of different groups, such as classes, do not suppress each other.
        margin: if positive, a box suppresses only those whose score is lower by more than this.
    """
    order = scores.argsort(descending=True, stable=True)
    kept = order[:0]
    for block in torch.split(order, BLOCK):
        beaten = _suppresses(boxes, scores, groups, kept, block, threshold, margin).any(0)
        block = block[~beaten]
        among = _suppresses(boxes, scores, groups, block, block, threshold, margin).triu(1)
        kept = torch.cat((kept, block[_survivors(among)]))
    return kept


def _suppresses(
    boxes: Tensor, scores: Tensor, groups: Tensor | None, one: Tensor, other: Tensor, threshold: float, margin: float
) -> Tensor:
    """Return [one, other]: whether a box would suppress another that comes after it."""
    found = overlap(boxes[one], boxes[other]) > threshold
    if groups is not None:
        found &= groups[one][:, None] == groups[other]
    if margin > 0:
        found &= scores[one][:, None] - scores[other] > margin
    return found


def _survivors(suppresses: Tensor) -> Tensor:
    """Return who stays where everyone can be suppressed by those before; [n, n] -> [n].

    Whoever nobody suppresses stays; without those that they suppress, the question is asked again. After the k-th time
    at least the first k answers are final, and when nothing changes, all are (Cluster NMS, arXiv 2005.03572).
    """
    stays = torch.ones(len(suppresses), dtype=torch.bool, device=suppresses.device)
    while True:
        again = ~(suppresses & stays[:, None]).any(0)
        if torch.equal(again, stays):
            return stays
        stays = again

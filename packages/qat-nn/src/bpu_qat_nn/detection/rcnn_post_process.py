"""RcnnPostProcess: from the second stage's scores and regressions of proposals to boxes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .boxes import clipped, decoded
from .nms import non_maximum_suppression
from .predictions import image_size_of
from .real_values import real, real_module

__all__ = ["RcnnPostProcess"]

PADDING = -1.0


@real_module
class RcnnPostProcess(nn.Module):
    """Decode, filter and suppress; a proposal is a candidate for its best class only.

    Scores are taken as they are, column 0 being the background, as in torchvision: put a softmax before it. A proposal
    whose best column is the background is none. The vendor documents names and defaults; what they do here is what Fast
    R-CNN does, but for the one class per proposal.

    Args:
        image_size: (height, width) to clip to; None if the call gives sizes, or for no clipping.
        nms_threshold: detections of a class that overlap a better one by more are dropped.
        box_filter_threshold: proposals whose best score is lower are dropped.
        num_classes: without the background.
        post_nms_top_k: rows of the result.
        delta_mean: regressions are multiplied by delta_std, then this is added.
        delta_std: see delta_mean; (0.1, 0.1, 0.2, 0.2) in Fast R-CNN.
    """

    def __init__(
        self,
        image_size: tuple[int, int] | None = (1024, 1024),
        nms_threshold: float = 0.3,
        box_filter_threshold: float = 0.1,
        num_classes: int = 1,
        post_nms_top_k: int = 100,
        delta_mean: Sequence[float] = (0, 0, 0, 0),
        delta_std: Sequence[float] = (1, 1, 1, 1),
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.nms_threshold = nms_threshold
        self.box_filter_threshold = box_filter_threshold
        self.num_classes = num_classes
        self.post_nms_top_k = post_nms_top_k
        self.delta_mean = tuple(delta_mean)
        self.delta_std = tuple(delta_std)

    def forward(
        self, boxes: Sequence[Tensor], scores: Tensor, deltas: Tensor, image_sizes: Tensor | None = None
    ) -> Tensor:
        """Return [N, post_nms_top_k, 6]: left, top, right, bottom, score, class (from 1 on); -1 where there is none.

        Args:
            boxes: the proposals of each image, [n, 4] or [1, n, 4], in pixels.
            scores: of all proposals of all images, [sum of n, classes + 1] or with further axes of length 1.
            deltas: likewise, [sum of n, (classes + 1) * 4].
            image_sizes: height and width of each image, or of all, [N or 1, 2].
        """
        proposals = [real(each).reshape(-1, 4) for each in boxes]
        counts = [len(each) for each in proposals]
        of_classes = torch.split(real(scores).reshape(sum(counts), self.num_classes + 1), counts)
        of_boxes = torch.split(real(deltas).reshape(sum(counts), self.num_classes + 1, 4), counts)
        return torch.stack(
            [
                self._image(*each, image_size_of(image, self.image_size, image_sizes))
                for image, each in enumerate(zip(proposals, of_classes, of_boxes, strict=True))
            ]
        )

    def _image(self, proposals: Tensor, scores: Tensor, deltas: Tensor, size: tuple[float, float] | None) -> Tensor:
        best, classes = scores.max(1)
        wanted = ((classes > 0) & (best >= self.box_filter_threshold)).nonzero().squeeze(1)
        proposals, best, classes = proposals[wanted], best[wanted], classes[wanted]
        mean, std = (deltas.new_tensor(each) for each in (self.delta_mean, self.delta_std))
        found = decoded(deltas[wanted, classes] * std + mean, proposals)
        if size is not None:
            found = clipped(found, *size)
        kept = non_maximum_suppression(found, best, self.nms_threshold, groups=classes)[: self.post_nms_top_k]
        result = found.new_full((self.post_nms_top_k, 6), PADDING)
        result[: len(kept)] = torch.cat((found[kept], best[kept, None], classes[kept, None].to(found)), 1)
        return result

    def extra_repr(self) -> str:
        """Show classes and thresholds."""
        return (
            f"num_classes={self.num_classes}, box_filter_threshold={self.box_filter_threshold}, "
            f"nms_threshold={self.nms_threshold}, post_nms_top_k={self.post_nms_top_k}"
        )

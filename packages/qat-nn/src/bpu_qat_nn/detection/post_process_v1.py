"""DetectionPostProcessV1: from integers of a sixteenth to boxes, one class per anchor, as bernoulli2 post-processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, InputError
from .boxes import clipped, decoded, large_enough
from .nms import non_maximum_suppression
from .predictions import Detections, anchor_rows, highest, image_size_of, rows
from .real_values import real, real_module

__all__ = ["DetectionPostProcessV1"]

STEP = 1 / 16
"""Scale of the integers that it takes."""
PADDINGS = (None, "pad_zero", "rollover")


@real_module
class DetectionPostProcessV1(nn.Module):
    """Decode, filter and suppress; an anchor is a candidate for its best class only.

    Predictions are int8 of scale 1/16: give the convolution before it ``FixedScaleObserver(scale=1 / 16)``, or what
    arrives is brought to these integers first, the nearest one. Scores stay logits; the threshold is one as well. It is
    decoded in float32 on the CPU, on every march; the vendor's form runs on the accelerator of bernoulli2, with an
    arithmetic that is not known.

    The vendor documents names and defaults, and the scale; the rest is what R-CNN does, unless said otherwise below.

    Args:
        num_classes: columns of scores.
        box_filter_threshold: anchors whose best score is lower are dropped.
        class_offsets: for each level, what is added to the number of the class.
        use_clippings: whether boxes are clipped to the image.
        image_size: (height, width); None if the call gives sizes.
        nms_threshold: candidates of a class that overlap a better one by more are dropped.
        pre_nms_top_k: how many candidates of an image take part, of all levels together.
        post_nms_top_k: how many detections an image has at most.
        nms_padding_mode: how an image with fewer gets that many: None: not at all; "pad_zero": with zeros; "rollover":
            by beginning again with the first (with zeros where there is none).
        nms_margin: if positive, a box suppresses only those whose score is lower by more.
        use_stable_sort: accepted for compatibility; equal scores stay in order in any case.
        bbox_min_hw: least height and width of a box.

    Raises:
        ArgumentError: an unknown padding mode.
    """

    def __init__(
        self,
        num_classes: int,
        box_filter_threshold: float,
        class_offsets: Sequence[int],
        use_clippings: bool,
        image_size: tuple[int, int] | None,
        nms_threshold: float,
        pre_nms_top_k: int,
        post_nms_top_k: int,
        nms_padding_mode: str | None = None,
        nms_margin: float = 0.0,
        use_stable_sort: bool | None = None,
        bbox_min_hw: tuple[float, float] = (0, 0),
    ) -> None:
        super().__init__()
        if nms_padding_mode not in PADDINGS:
            raise ArgumentError(f"expected an nms_padding_mode of {PADDINGS}, got {nms_padding_mode!r}")
        self.num_classes = num_classes
        self.box_filter_threshold = box_filter_threshold
        self.class_offsets = tuple(class_offsets)
        self.use_clippings = use_clippings
        self.image_size = image_size
        self.nms_threshold = nms_threshold
        self.pre_nms_top_k = pre_nms_top_k
        self.post_nms_top_k = post_nms_top_k
        self.nms_padding_mode = nms_padding_mode
        self.nms_margin = nms_margin
        self.bbox_min_hw = bbox_min_hw

    def forward(
        self, data: Sequence[Tensor], anchors: Sequence[Tensor], image_sizes: Tensor | None = None
    ) -> list[Detections]:
        """Return for every image boxes [n, 4], scores [n] and classes [n], the highest score first.

        Args:
            data: of each level, [N, A * (4 + classes), H, W]: for every anchor four regressions, then its scores.
            anchors: of each level, [N or 1, A * 4, H, W], [N, anchors, 4] or [anchors, 4], in pixels.
            image_sizes: height and width of each image, or of all, [N or 1, 2].

        Raises:
            InputError: another number of levels, anchors or classes than announced, or no size to clip to.
        """
        if not len(data) == len(anchors) == len(self.class_offsets):
            raise InputError(
                f"expected data and anchors of {len(self.class_offsets)} levels, as many as class_offsets, got "
                f"{len(data)} and {len(anchors)}"
            )
        levels = [self._level(*each) for each in zip(data, anchors, self.class_offsets, strict=True)]
        boxes, scores, classes = (torch.cat(each, 1) for each in zip(*levels, strict=True))
        sizes = [image_size_of(i, self.image_size, image_sizes) for i in range(len(boxes))]
        return [self._image(*each) for each in zip(boxes, scores, classes, sizes, strict=True)]

    def _level(self, data: Tensor, anchors: Tensor, offset: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes [N, M, 4], scores and classes [N, M] of all anchors of one level."""
        where = anchor_rows(anchors)
        steps = rows((real(data) / STEP).round().clamp(-128, 127), where.shape[1])
        if steps.shape[2] != 4 + self.num_classes:
            raise InputError(
                f"expected {4 + self.num_classes} values per anchor, four and one for each class, got {steps.shape[2]}"
            )
        scores, classes = (steps[..., 4:] * STEP).max(2)
        return decoded(steps[..., :4] * STEP, where), scores, classes + offset

    def _image(self, boxes: Tensor, scores: Tensor, classes: Tensor, size: tuple[float, float] | None) -> Detections:
        if self.use_clippings:
            if size is None:
                raise InputError("use_clippings needs image_size in the constructor, or image_sizes at the call")
            boxes = clipped(boxes, *size)
        wanted = (scores >= self.box_filter_threshold) & large_enough(boxes, *self.bbox_min_hw)
        boxes, scores, classes = boxes[wanted], scores[wanted], classes[wanted]
        best = highest(scores, self.pre_nms_top_k)
        boxes, scores, classes = boxes[best], scores[best], classes[best]
        kept = non_maximum_suppression(boxes, scores, self.nms_threshold, groups=classes, margin=self.nms_margin)
        kept = kept[: self.post_nms_top_k]
        return self._padded(boxes[kept], scores[kept], classes[kept])

    def _padded(self, *found: Tensor) -> Detections:
        """Return detections of the announced number, if that is asked for."""
        missing = self.post_nms_top_k - len(found[0])
        if self.nms_padding_mode is None or missing <= 0:
            boxes, scores, classes = found
        elif self.nms_padding_mode == "rollover" and len(found[0]):
            again = torch.arange(self.post_nms_top_k, device=found[0].device) % len(found[0])
            boxes, scores, classes = (each[again] for each in found)
        else:
            boxes, scores, classes = (torch.cat((x, x.new_zeros(missing, *x.shape[1:]))) for x in found)
        return boxes, scores, classes

    def extra_repr(self) -> str:
        """Show classes and thresholds."""
        return (
            f"num_classes={self.num_classes}, box_filter_threshold={self.box_filter_threshold}, "
            f"nms_threshold={self.nms_threshold}, post_nms_top_k={self.post_nms_top_k}"
        )

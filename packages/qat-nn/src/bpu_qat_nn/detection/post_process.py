"""DetectionPostProcess: from the predictions of anchors to boxes, for RetinaNet, SSD, YOLO and region proposals."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from .boxes import clipped, decoded, large_enough
from .nms import non_maximum_suppression
from .predictions import Detections, anchor_rows, highest, image_size_of, rows
from .real_values import real_module

__all__ = ["DetectionPostProcess"]

MODES = ("normal", "yolo")


@real_module
class DetectionPostProcess(nn.Module):
    """Decode, filter and suppress; every class of an anchor is a candidate of its own.

    On each level: the best anchors, decoding, clipping, boxes too small, candidates below the threshold, the best
    candidates. Then, on each level or on all together: the best candidates, suppression within each class, and at last
    the best of the image. Scores are taken as they are: put sigmoid or softmax before it.

    The vendor documents names and defaults; what they do here is what RetinaNet and Faster R-CNN do in torchvision.

    Args:
        score_threshold: candidates with a lower score are dropped.
        regression_scale: factors of the four regressed numbers, (0.1, 0.1, 0.2, 0.2) in Fast R-CNN; None for 1.
        background_class_idx: a column of the scores that is no class; the others keep their numbers.
        size_threshold: boxes of a smaller height or width are dropped.
        image_size: (height, width) to clip to; None for no clipping, unless the call gives sizes.
        pre_decode_top_n: how many anchors of a level are decoded: those with the highest score of any class, or in
            mode "yolo" the highest objectness.
        post_decode_top_n: how many candidates of a level stay behind the decoding.
        iou_threshold: candidates of a class that overlap a better one by more are dropped; None for no suppression.
        pre_nms_top_n: how many candidates take part in a suppression.
        post_nms_top_n: how many detections an image has at most.
        nms_on_each_level: whether levels are suppressed apart, as for region proposals.
        mode: "normal"; or "yolo": the first score is the objectness, which the threshold is for and which multiplies
            the others, and middles are regressed in pixels.

    Raises:
        ArgumentError: an unknown mode.
    """

    def __init__(
        self,
        score_threshold: float = 0,
        regression_scale: Sequence[float] | None = None,
        background_class_idx: int | None = None,
        size_threshold: float | None = None,
        image_size: tuple[int, int] | None = None,
        pre_decode_top_n: int | None = None,
        post_decode_top_n: int | None = None,
        iou_threshold: float | None = None,
        pre_nms_top_n: int | None = None,
        post_nms_top_n: int | None = None,
        nms_on_each_level: bool = False,
        mode: str = "normal",
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise ArgumentError(f"expected a mode of {MODES}, got {mode!r}")
        self.score_threshold = score_threshold
        self.regression_scale = None if regression_scale is None else tuple(regression_scale)
        self.background_class_idx = background_class_idx
        self.size_threshold = size_threshold
        self.image_size = image_size
        self.pre_decode_top_n = pre_decode_top_n
        self.post_decode_top_n = post_decode_top_n
        self.iou_threshold = iou_threshold
        self.pre_nms_top_n = pre_nms_top_n
        self.post_nms_top_n = post_nms_top_n
        self.nms_on_each_level = nms_on_each_level
        self.mode = mode

    def forward(
        self,
        boxes: Sequence[Tensor],
        scores: Sequence[Tensor],
        regressions: Sequence[Tensor],
        image_shapes: Tensor | Sequence[Sequence[int]] | None = None,
    ) -> list[Detections]:
        """Return for every image boxes [n, 4], scores [n] and classes [n], the highest score first.

        Args:
            boxes: the anchors of each level, [N or 1, A * 4, H, W], [N, anchors, 4] or [anchors, 4], in pixels.
            scores: of each level, [N, A * classes, H, W] or [N, anchors, classes].
            regressions: of each level, [N, A * 4, H, W] or [N, anchors, 4].
            image_shapes: height and width of each image, or of all, [N or 1, 2].

        Raises:
            InputError: predictions of a level for another number of anchors.
        """
        anchors = [anchor_rows(each) for each in boxes]
        counts = [each.shape[1] for each in anchors]
        by_level = [
            (level, rows(s, count), rows(r, count))
            for level, s, r, count in zip(anchors, scores, regressions, counts, strict=True)
        ]
        images = max(len(s) for _, s, _ in by_level)
        return [self._image(i, by_level, image_size_of(i, self.image_size, image_shapes)) for i in range(images)]

    def _image(
        self, image: int, by_level: Sequence[tuple[Tensor, Tensor, Tensor]], size: tuple[float, float] | None
    ) -> Detections:
        levels = [
            self._candidates(*[each[image if len(each) > 1 else 0] for each in level], size=size) for level in by_level
        ]
        if not self.nms_on_each_level:
            levels = [_joined(levels)]
        boxes, scores, classes = _joined([self._suppressed(*level) for level in levels])
        best = highest(scores, self.post_nms_top_n)
        return boxes[best], scores[best], classes[best]

    def _candidates(
        self, anchors: Tensor, scores: Tensor, regressions: Tensor, *, size: tuple[float, float] | None
    ) -> Detections:
        """Return what one level finds in one image: anchors [M, 4], scores [M, classes], regressions [M, 4]."""
        scores, judged = self._judged(scores)
        if self.pre_decode_top_n is not None:
            first = highest(judged.amax(1), self.pre_decode_top_n)
            anchors, scores, regressions, judged = (each[first] for each in (anchors, scores, regressions, judged))
        if self.regression_scale is not None:
            regressions = regressions * regressions.new_tensor(self.regression_scale)
        boxes = decoded(regressions, anchors, in_pixels=self.mode == "yolo")
        if size is not None:
            boxes = clipped(boxes, *size)
        wanted = (judged >= self.score_threshold).expand_as(scores) & (scores > -torch.inf)
        if self.size_threshold is not None:
            wanted = wanted & large_enough(boxes, self.size_threshold, self.size_threshold)[:, None]
        box, found = wanted.nonzero(as_tuple=True)
        values = scores[box, found]
        best = highest(values, self.post_decode_top_n)
        return boxes[box[best]], values[best], found[best]

    def _judged(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores [M, classes], minus infinity for the background, and what the threshold looks at."""
        objectness = scores[:, :1]
        if self.mode == "yolo":
            scores = objectness * scores[:, 1:]
        if self.background_class_idx is not None:
            scores = scores.clone()
            scores[:, self.background_class_idx] = -torch.inf
        return scores, objectness if self.mode == "yolo" else scores

    def _suppressed(self, boxes: Tensor, scores: Tensor, classes: Tensor) -> Detections:
        best = highest(scores, self.pre_nms_top_n)
        boxes, scores, classes = boxes[best], scores[best], classes[best]
        if self.iou_threshold is not None:
            kept = non_maximum_suppression(boxes, scores, self.iou_threshold, groups=classes)
            boxes, scores, classes = boxes[kept], scores[kept], classes[kept]
        return boxes, scores, classes

    def extra_repr(self) -> str:
        """Show what decides how many there are."""
        return (
            f"score_threshold={self.score_threshold}, iou_threshold={self.iou_threshold}, "
            f"post_nms_top_n={self.post_nms_top_n}, mode={self.mode!r}"
        )


def _joined(parts: Sequence[Detections]) -> Detections:
    boxes, scores, classes = (torch.cat(each) for each in zip(*parts, strict=True))
    return boxes, scores, classes

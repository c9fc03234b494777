"""Detection: anchors, post-processing and point pillars, in float on the CPU, around what is quantized."""

from __future__ import annotations

from .anchors import AnchorGenerator
from .filter import filter
from .nms import non_maximum_suppression
from .pillars import PointPillarsScatter, point_pillars_preprocess
from .post_process import DetectionPostProcess
from .post_process_v1 import DetectionPostProcessV1
from .rcnn_post_process import RcnnPostProcess
from .real_values import REAL_READERS

__all__ = [
    "REAL_READERS",
    "AnchorGenerator",
    "DetectionPostProcess",
    "DetectionPostProcessV1",
    "PointPillarsScatter",
    "RcnnPostProcess",
    "filter",
    "non_maximum_suppression",
    "point_pillars_preprocess",
]

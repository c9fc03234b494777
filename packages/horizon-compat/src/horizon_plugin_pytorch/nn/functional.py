"""Functions for detection: the places of a map that count, and point clouds to pillars."""

from __future__ import annotations

from bpu_qat_nn.detection import filter as filter
from bpu_qat_nn.detection import point_pillars_preprocess as point_pillars_preprocess

"""Observers, one family per file: they watch the batches of a tensor and say which range its scale should cover."""

from __future__ import annotations

from .base import Observer
from .clip import ClipObserver, ClipStd, ClipStdObserver
from .fixed_scale import FixedScaleObserver
from .histogram import Histogram, HistogramObserver
from .kl import KLObserver
from .min_max import (
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    MovingAveragePerTensorMinMaxObserver,
    PerChannelMinMaxObserver,
)
from .mix import MixObserver
from .mse import MSEObserver
from .percentile import PercentileObserver

__all__ = [
    "ClipObserver",
    "ClipStd",
    "ClipStdObserver",
    "FixedScaleObserver",
    "Histogram",
    "HistogramObserver",
    "KLObserver",
    "MSEObserver",
    "MinMaxObserver",
    "MixObserver",
    "MovingAverageMinMaxObserver",
    "MovingAveragePerChannelMinMaxObserver",
    "MovingAveragePerTensorMinMaxObserver",
    "Observer",
    "PerChannelMinMaxObserver",
    "PercentileObserver",
]

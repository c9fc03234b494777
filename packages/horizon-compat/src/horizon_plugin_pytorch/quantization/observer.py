"""Observers that average the range of batches, and the one with a fixed scale."""

from __future__ import annotations

from bpu_qconfig import ClipObserver as ClipObserver
from bpu_qconfig import ClipStd as ClipStd
from bpu_qconfig import FixedScaleObserver as FixedScaleObserver
from bpu_qconfig import MovingAverageMinMaxObserver as MovingAverageMinMaxObserver
from bpu_qconfig import MovingAveragePerChannelMinMaxObserver as MovingAveragePerChannelMinMaxObserver
from bpu_qconfig import MovingAveragePerTensorMinMaxObserver as MovingAveragePerTensorMinMaxObserver
from bpu_qconfig import PerChannelMinMaxObserver as PerChannelMinMaxObserver

from ..unavailable import explain_missing

__getattr__ = explain_missing(__name__)

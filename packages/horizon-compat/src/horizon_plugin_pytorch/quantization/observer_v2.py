"""Observers for calibration."""

from __future__ import annotations

from bpu_qconfig import ClipObserver as ClipObserver
from bpu_qconfig import ClipStd as ClipStd
from bpu_qconfig import FixedScaleObserver as FixedScaleObserver
from bpu_qconfig import KLObserver as KLObserver
from bpu_qconfig import MinMaxObserver as MinMaxObserver
from bpu_qconfig import MixObserver as MixObserver
from bpu_qconfig import MSEObserver as MSEObserver
from bpu_qconfig import PercentileObserver as PercentileObserver

from ..unavailable import explain_missing

__getattr__ = explain_missing(__name__)

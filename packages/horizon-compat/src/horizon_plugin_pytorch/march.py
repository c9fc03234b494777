"""The march that models are prepared for."""

from __future__ import annotations

from bpu_qconfig import March as March
from bpu_qconfig import get_march as get_march
from bpu_qconfig import set_march as set_march

from .unavailable import explain_missing

__getattr__ = explain_missing(__name__)

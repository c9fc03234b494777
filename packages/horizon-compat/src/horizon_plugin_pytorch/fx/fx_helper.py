"""`wrap`, which keeps code out of the trace, and the tracer."""

from __future__ import annotations

from bpu_fx_fusion import Tracer as CustomTracer
from bpu_fx_fusion import wrap

from ..unavailable import explain_missing

__all__ = ["CustomTracer", "wrap"]

__getattr__ = explain_missing(__name__)

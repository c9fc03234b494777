"""Helpers, each in a module of its own."""

from __future__ import annotations

from ..unavailable import explain_missing
from . import fx_helper as fx_helper
from . import onnx_helper as onnx_helper
from . import quant_profiler as quant_profiler

__getattr__ = explain_missing(__name__)

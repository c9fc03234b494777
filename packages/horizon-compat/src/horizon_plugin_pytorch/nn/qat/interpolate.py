"""Resizing under quantization-aware training."""

from __future__ import annotations

from bpu_qat_nn.qat import Interpolate as Interpolate

__all__ = ["Interpolate"]

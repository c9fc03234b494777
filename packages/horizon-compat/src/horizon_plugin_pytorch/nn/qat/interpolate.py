"""Resizing under quantization-aware training."""

from __future__ import annotations

from bpu_qat_nn.ops.resize import QATInterpolate as Interpolate

__all__ = ["Interpolate"]

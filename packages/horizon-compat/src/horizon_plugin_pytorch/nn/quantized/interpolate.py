"""Resizing on integers."""

from __future__ import annotations

from bpu_qat_nn.quantized import Interpolate as Interpolate

__all__ = ["Interpolate"]

"""Resizing on integers."""

from __future__ import annotations

from bpu_qat_nn.ops.resize import QuantizedInterpolate as Interpolate

__all__ = ["Interpolate"]

"""Resizing, by the names of torch's modules, on integers."""

from __future__ import annotations

from bpu_qat_nn.quantized import Interpolate as Upsample
from bpu_qat_nn.quantized import Interpolate as UpsamplingBilinear2d

__all__ = ["Upsample", "UpsamplingBilinear2d"]

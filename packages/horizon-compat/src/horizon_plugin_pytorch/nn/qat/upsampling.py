"""Resizing, by the names of torch's modules, under quantization-aware training."""

from __future__ import annotations

from bpu_qat_nn.qat import Interpolate as Upsample
from bpu_qat_nn.qat import Interpolate as UpsamplingBilinear2d

__all__ = ["Upsample", "UpsamplingBilinear2d"]

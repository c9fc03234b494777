"""Resizing, by the names of torch's modules, under quantization-aware training."""

from __future__ import annotations

from bpu_qat_nn.ops.resize import QATInterpolate as Upsample
from bpu_qat_nn.ops.resize import QATInterpolate as UpsamplingBilinear2d

__all__ = ["Upsample", "UpsamplingBilinear2d"]

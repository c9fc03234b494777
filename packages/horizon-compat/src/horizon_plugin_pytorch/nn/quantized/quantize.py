"""Where real values become integers, and integers real values."""

from __future__ import annotations

from bpu_qat_nn.quantized import DeQuantize as DeQuantize
from bpu_qat_nn.quantized import Quantize as Quantize

__all__ = ["DeQuantize", "Quantize"]

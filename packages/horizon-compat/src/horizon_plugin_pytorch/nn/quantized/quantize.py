"""Where real values become integers, and integers real values."""

from __future__ import annotations

from bpu_qat_nn.ops.stubs import QuantizedDeQuantStub as DeQuantize
from bpu_qat_nn.ops.stubs import QuantizedQuantStub as Quantize

__all__ = ["DeQuantize", "Quantize"]

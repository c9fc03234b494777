"""FloatFunctional under quantization-aware training."""

from __future__ import annotations

from bpu_qat_nn import QATFloatFunctional as FloatFunctional

__all__ = ["FloatFunctional"]

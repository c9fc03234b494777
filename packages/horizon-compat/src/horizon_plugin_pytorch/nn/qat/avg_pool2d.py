"""Average pooling under quantization-aware training."""

from __future__ import annotations

from bpu_qat_nn.qat import AvgPool2d as AvgPool2d

__all__ = ["AvgPool2d"]

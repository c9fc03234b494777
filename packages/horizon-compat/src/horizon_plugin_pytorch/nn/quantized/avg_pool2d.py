"""Average pooling on integers."""

from __future__ import annotations

from bpu_qat_nn.quantized import AvgPool2d as AvgPool2d

__all__ = ["AvgPool2d"]

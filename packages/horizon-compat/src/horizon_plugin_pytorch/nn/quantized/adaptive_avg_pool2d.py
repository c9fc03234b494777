"""Average pooling to a given size on integers."""

from __future__ import annotations

from bpu_qat_nn.quantized import AdaptiveAvgPool2d as AdaptiveAvgPool2d

__all__ = ["AdaptiveAvgPool2d"]

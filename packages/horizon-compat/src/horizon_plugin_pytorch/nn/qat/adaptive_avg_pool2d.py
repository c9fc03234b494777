"""Average pooling to a given size under quantization-aware training."""

from __future__ import annotations

from bpu_qat_nn.qat import AdaptiveAvgPool2d as AdaptiveAvgPool2d

__all__ = ["AdaptiveAvgPool2d"]

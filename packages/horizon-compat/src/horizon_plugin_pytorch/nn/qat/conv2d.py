"""Convolution, alone and fused, under quantization-aware training."""

from __future__ import annotations

from bpu_qat_nn.qat import Conv2d as Conv2d
from bpu_qat_nn.qat import ConvAdd2d as ConvAdd2d
from bpu_qat_nn.qat import ConvAddReLU2d as ConvAddReLU2d
from bpu_qat_nn.qat import ConvAddReLU62d as ConvAddReLU62d
from bpu_qat_nn.qat import ConvReLU2d as ConvReLU2d
from bpu_qat_nn.qat import ConvReLU62d as ConvReLU62d

__all__ = ["Conv2d", "ConvAdd2d", "ConvAddReLU2d", "ConvAddReLU62d", "ConvReLU2d", "ConvReLU62d"]

"""Convolution, alone and fused, on integers."""

from __future__ import annotations

from bpu_qat_nn.quantized import Conv2d as Conv2d
from bpu_qat_nn.quantized import ConvAdd2d as ConvAdd2d
from bpu_qat_nn.quantized import ConvAddReLU2d as ConvAddReLU2d
from bpu_qat_nn.quantized import ConvAddReLU62d as ConvAddReLU62d
from bpu_qat_nn.quantized import ConvReLU2d as ConvReLU2d
from bpu_qat_nn.quantized import ConvReLU62d as ConvReLU62d

__all__ = ["Conv2d", "ConvAdd2d", "ConvAddReLU2d", "ConvAddReLU62d", "ConvReLU2d", "ConvReLU62d"]

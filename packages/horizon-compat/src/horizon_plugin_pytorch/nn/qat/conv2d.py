"""Convolution, alone and fused, under quantization-aware training."""

from __future__ import annotations

from bpu_qat_nn.ops.conv import QATConv2d as Conv2d
from bpu_qat_nn.ops.conv import QATConvAdd2d as ConvAdd2d
from bpu_qat_nn.ops.conv import QATConvAddReLU2d as ConvAddReLU2d
from bpu_qat_nn.ops.conv import QATConvAddReLU62d as ConvAddReLU62d
from bpu_qat_nn.ops.conv import QATConvReLU2d as ConvReLU2d
from bpu_qat_nn.ops.conv import QATConvReLU62d as ConvReLU62d

__all__ = ["Conv2d", "ConvAdd2d", "ConvAddReLU2d", "ConvAddReLU62d", "ConvReLU2d", "ConvReLU62d"]

"""Convolution, alone and fused, on integers."""

from __future__ import annotations

from bpu_qat_nn.ops.conv import QuantizedConv2d as Conv2d
from bpu_qat_nn.ops.conv import QuantizedConvAdd2d as ConvAdd2d
from bpu_qat_nn.ops.conv import QuantizedConvAddReLU2d as ConvAddReLU2d
from bpu_qat_nn.ops.conv import QuantizedConvAddReLU62d as ConvAddReLU62d
from bpu_qat_nn.ops.conv import QuantizedConvReLU2d as ConvReLU2d
from bpu_qat_nn.ops.conv import QuantizedConvReLU62d as ConvReLU62d

__all__ = ["Conv2d", "ConvAdd2d", "ConvAddReLU2d", "ConvAddReLU62d", "ConvReLU2d", "ConvReLU62d"]

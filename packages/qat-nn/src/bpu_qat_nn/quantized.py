"""The converted modules by the names that the vendor's ``nn.quantized`` has."""

from __future__ import annotations

from .ops.clip import QuantizedClip as Clip
from .ops.functional import QFunctional as QFunctional
from .ops.pad import QuantizedPad as Pad
from .ops.pooling.adaptive_average import QuantizedAdaptiveAvgPool2d as AdaptiveAvgPool2d
from .ops.pooling.pool import QuantizedAvgPool2d as AvgPool2d
from .ops.pooling.pool import QuantizedMaxPool2d as MaxPool2d
from .ops.resize import QuantizedInterpolate as Interpolate
from .ops.stubs import QuantizedDeQuantStub as DeQuantize
from .ops.stubs import QuantizedQuantStub as Quantize
from .ops.table import QuantizedTable as Table
from .ops.weighted.conv import QuantizedConv2d as Conv2d
from .ops.weighted.conv import QuantizedConv3d as Conv3d
from .ops.weighted.conv import QuantizedConvAdd2d as ConvAdd2d
from .ops.weighted.conv import QuantizedConvAdd3d as ConvAdd3d
from .ops.weighted.conv import QuantizedConvAddReLU2d as ConvAddReLU2d
from .ops.weighted.conv import QuantizedConvAddReLU3d as ConvAddReLU3d
from .ops.weighted.conv import QuantizedConvAddReLU62d as ConvAddReLU62d
from .ops.weighted.conv import QuantizedConvAddReLU63d as ConvAddReLU63d
from .ops.weighted.conv import QuantizedConvReLU2d as ConvReLU2d
from .ops.weighted.conv import QuantizedConvReLU3d as ConvReLU3d
from .ops.weighted.conv import QuantizedConvReLU62d as ConvReLU62d
from .ops.weighted.conv import QuantizedConvReLU63d as ConvReLU63d
from .ops.weighted.conv_transpose import QuantizedConvTranspose2d as ConvTranspose2d
from .ops.weighted.conv_transpose import QuantizedConvTransposeAdd2d as ConvTransposeAdd2d
from .ops.weighted.conv_transpose import QuantizedConvTransposeAddReLU2d as ConvTransposeAddReLU2d
from .ops.weighted.conv_transpose import QuantizedConvTransposeAddReLU62d as ConvTransposeAddReLU62d
from .ops.weighted.conv_transpose import QuantizedConvTransposeReLU2d as ConvTransposeReLU2d
from .ops.weighted.conv_transpose import QuantizedConvTransposeReLU62d as ConvTransposeReLU62d
from .ops.weighted.linear import QuantizedLinear as Linear
from .ops.weighted.linear import QuantizedLinearAdd as LinearAdd
from .ops.weighted.linear import QuantizedLinearAddReLU as LinearAddReLU
from .ops.weighted.linear import QuantizedLinearAddReLU6 as LinearAddReLU6
from .ops.weighted.linear import QuantizedLinearReLU as LinearReLU
from .ops.weighted.linear import QuantizedLinearReLU6 as LinearReLU6

__all__ = [
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "Clip",
    "Conv2d",
    "Conv3d",
    "ConvAdd2d",
    "ConvAdd3d",
    "ConvAddReLU2d",
    "ConvAddReLU3d",
    "ConvAddReLU62d",
    "ConvAddReLU63d",
    "ConvReLU2d",
    "ConvReLU3d",
    "ConvReLU62d",
    "ConvReLU63d",
    "ConvTranspose2d",
    "ConvTransposeAdd2d",
    "ConvTransposeAddReLU2d",
    "ConvTransposeAddReLU62d",
    "ConvTransposeReLU2d",
    "ConvTransposeReLU62d",
    "DeQuantize",
    "Interpolate",
    "Linear",
    "LinearAdd",
    "LinearAddReLU",
    "LinearAddReLU6",
    "LinearReLU",
    "LinearReLU6",
    "MaxPool2d",
    "Pad",
    "QFunctional",
    "Quantize",
    "Table",
]

"""The converted modules by the names that the vendor's ``nn.quantized`` has."""

from __future__ import annotations

from .ops.adaptive_average import QuantizedAdaptiveAvgPool2d as AdaptiveAvgPool2d
from .ops.clip import QuantizedClip as Clip
from .ops.conv import QuantizedConv2d as Conv2d
from .ops.conv import QuantizedConv3d as Conv3d
from .ops.conv import QuantizedConvAdd2d as ConvAdd2d
from .ops.conv import QuantizedConvAdd3d as ConvAdd3d
from .ops.conv import QuantizedConvAddReLU2d as ConvAddReLU2d
from .ops.conv import QuantizedConvAddReLU3d as ConvAddReLU3d
from .ops.conv import QuantizedConvAddReLU62d as ConvAddReLU62d
from .ops.conv import QuantizedConvAddReLU63d as ConvAddReLU63d
from .ops.conv import QuantizedConvReLU2d as ConvReLU2d
from .ops.conv import QuantizedConvReLU3d as ConvReLU3d
from .ops.conv import QuantizedConvReLU62d as ConvReLU62d
from .ops.conv import QuantizedConvReLU63d as ConvReLU63d
from .ops.conv_transpose import QuantizedConvTranspose2d as ConvTranspose2d
from .ops.conv_transpose import QuantizedConvTransposeAdd2d as ConvTransposeAdd2d
from .ops.conv_transpose import QuantizedConvTransposeAddReLU2d as ConvTransposeAddReLU2d
from .ops.conv_transpose import QuantizedConvTransposeAddReLU62d as ConvTransposeAddReLU62d
from .ops.conv_transpose import QuantizedConvTransposeReLU2d as ConvTransposeReLU2d
from .ops.conv_transpose import QuantizedConvTransposeReLU62d as ConvTransposeReLU62d
from .ops.functional import QFunctional as QFunctional
from .ops.linear import QuantizedLinear as Linear
from .ops.linear import QuantizedLinearAdd as LinearAdd
from .ops.linear import QuantizedLinearAddReLU as LinearAddReLU
from .ops.linear import QuantizedLinearAddReLU6 as LinearAddReLU6
from .ops.linear import QuantizedLinearReLU as LinearReLU
from .ops.linear import QuantizedLinearReLU6 as LinearReLU6
from .ops.pad import QuantizedPad as Pad
from .ops.pool import QuantizedAvgPool2d as AvgPool2d
from .ops.pool import QuantizedMaxPool2d as MaxPool2d
from .ops.resize import QuantizedInterpolate as Interpolate
from .ops.stubs import QuantizedDeQuantStub as DeQuantize
from .ops.stubs import QuantizedQuantStub as Quantize
from .ops.table import QuantizedTable as Table

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

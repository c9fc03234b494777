"""The modules under quantization-aware training by the names that the vendor's ``nn.qat`` has."""

from __future__ import annotations

from .ops.clip import QATClip as Clip
from .ops.dropout import QATDropout as Dropout
from .ops.functional import QATFloatFunctional as FloatFunctional
from .ops.pad import QATPad as Pad
from .ops.pooling.adaptive_average import QATAdaptiveAvgPool2d as AdaptiveAvgPool2d
from .ops.pooling.pool import QATAvgPool2d as AvgPool2d
from .ops.pooling.pool import QATMaxPool2d as MaxPool2d
from .ops.resize import QATInterpolate as Interpolate
from .ops.stubs import QATDeQuantStub as DeQuantStub
from .ops.stubs import QATQuantStub as QuantStub
from .ops.table import QATTable as Table
from .ops.weighted.batch_norm import QATBatchNorm2d as BatchNorm2d
from .ops.weighted.conv import QATConv2d as Conv2d
from .ops.weighted.conv import QATConv3d as Conv3d
from .ops.weighted.conv import QATConvAdd2d as ConvAdd2d
from .ops.weighted.conv import QATConvAdd3d as ConvAdd3d
from .ops.weighted.conv import QATConvAddReLU2d as ConvAddReLU2d
from .ops.weighted.conv import QATConvAddReLU3d as ConvAddReLU3d
from .ops.weighted.conv import QATConvAddReLU62d as ConvAddReLU62d
from .ops.weighted.conv import QATConvAddReLU63d as ConvAddReLU63d
from .ops.weighted.conv import QATConvReLU2d as ConvReLU2d
from .ops.weighted.conv import QATConvReLU3d as ConvReLU3d
from .ops.weighted.conv import QATConvReLU62d as ConvReLU62d
from .ops.weighted.conv import QATConvReLU63d as ConvReLU63d
from .ops.weighted.conv_transpose import QATConvTranspose2d as ConvTranspose2d
from .ops.weighted.conv_transpose import QATConvTransposeAdd2d as ConvTransposeAdd2d
from .ops.weighted.conv_transpose import QATConvTransposeAddReLU2d as ConvTransposeAddReLU2d
from .ops.weighted.conv_transpose import QATConvTransposeAddReLU62d as ConvTransposeAddReLU62d
from .ops.weighted.conv_transpose import QATConvTransposeReLU2d as ConvTransposeReLU2d
from .ops.weighted.conv_transpose import QATConvTransposeReLU62d as ConvTransposeReLU62d
from .ops.weighted.linear import QATLinear as Linear
from .ops.weighted.linear import QATLinearAdd as LinearAdd
from .ops.weighted.linear import QATLinearAddReLU as LinearAddReLU
from .ops.weighted.linear import QATLinearAddReLU6 as LinearAddReLU6
from .ops.weighted.linear import QATLinearReLU as LinearReLU
from .ops.weighted.linear import QATLinearReLU6 as LinearReLU6

__all__ = [
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm2d",
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
    "DeQuantStub",
    "Dropout",
    "FloatFunctional",
    "Interpolate",
    "Linear",
    "LinearAdd",
    "LinearAddReLU",
    "LinearAddReLU6",
    "LinearReLU",
    "LinearReLU6",
    "MaxPool2d",
    "Pad",
    "QuantStub",
    "Table",
]

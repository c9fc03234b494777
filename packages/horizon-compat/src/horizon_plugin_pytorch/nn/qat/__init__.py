"""Modules under quantization-aware training."""

from __future__ import annotations

from . import adaptive_avg_pool2d as adaptive_avg_pool2d
from . import avg_pool2d as avg_pool2d
from . import batchnorm as batchnorm
from . import conv2d as conv2d
from . import functional_modules as functional_modules
from . import interpolate as interpolate
from . import relu as relu
from . import segment_lut as segment_lut
from . import stubs as stubs
from . import upsampling as upsampling
from .adaptive_avg_pool2d import AdaptiveAvgPool2d as AdaptiveAvgPool2d
from .avg_pool2d import AvgPool2d as AvgPool2d
from .batchnorm import BatchNorm2d as BatchNorm2d
from .conv2d import Conv2d as Conv2d
from .conv2d import ConvAdd2d as ConvAdd2d
from .conv2d import ConvAddReLU2d as ConvAddReLU2d
from .conv2d import ConvAddReLU62d as ConvAddReLU62d
from .conv2d import ConvReLU2d as ConvReLU2d
from .conv2d import ConvReLU62d as ConvReLU62d
from .functional_modules import FloatFunctional as FloatFunctional
from .interpolate import Interpolate as Interpolate
from .relu import ReLU as ReLU
from .segment_lut import SegmentLUT as SegmentLUT
from .stubs import DeQuantStub as DeQuantStub
from .stubs import QuantStub as QuantStub
from .upsampling import Upsample as Upsample
from .upsampling import UpsamplingBilinear2d as UpsamplingBilinear2d

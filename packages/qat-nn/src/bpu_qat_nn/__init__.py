"""Quantization-aware and integer forms of operators, prepare_qat_fx and convert_fx."""

from __future__ import annotations

import importlib.metadata

from .color import (
    bgr2centered_gray,
    bgr2centered_yuv,
    bgr2gray,
    bgr2rgb,
    bgr2yuv,
    centered_yuv2bgr,
    centered_yuv2rgb,
    rgb2bgr,
    rgb2centered_gray,
    rgb2centered_yuv,
    rgb2gray,
    rgb2yuv,
)
from .convert import convert_fx
from .errors import (
    ArgumentError,
    BpuQatError,
    ConvertError,
    InputError,
    NotOnGridError,
    PrepareError,
    QTensorError,
    Refusal,
)
from .graph_module import ObservedGraphModule, QuantizedGraphModule
from .moves import MOVES
from .op import Operator, OpRow, Output
from .ops import OPS, ROWS
from .ops.functional import QATFloatFunctional, QFunctional
from .ops.stubs import DeQuantStub, QuantStub
from .prepare import prepare_qat_fx
from .qat_mode import QATMode, get_qat_mode, qat_mode_scope, set_qat_mode
from .qat_module import QATModule
from .qtensor import QTensor
from .quantized_module import QuantizedModule
from .report import DISPLAYS, LeftInFloat, PrepareReport, Quantized

__version__ = importlib.metadata.version("bpu-qat-nn")

__all__ = [
    "DISPLAYS",
    "MOVES",
    "OPS",
    "ROWS",
    "ArgumentError",
    "BpuQatError",
    "ConvertError",
    "DeQuantStub",
    "InputError",
    "LeftInFloat",
    "NotOnGridError",
    "ObservedGraphModule",
    "OpRow",
    "Operator",
    "Output",
    "PrepareError",
    "PrepareReport",
    "QATFloatFunctional",
    "QATMode",
    "QATModule",
    "QFunctional",
    "QTensor",
    "QTensorError",
    "QuantStub",
    "Quantized",
    "QuantizedGraphModule",
    "QuantizedModule",
    "Refusal",
    "__version__",
    "bgr2centered_gray",
    "bgr2centered_yuv",
    "bgr2gray",
    "bgr2rgb",
    "bgr2yuv",
    "centered_yuv2bgr",
    "centered_yuv2rgb",
    "convert_fx",
    "get_qat_mode",
    "prepare_qat_fx",
    "qat_mode_scope",
    "rgb2bgr",
    "rgb2centered_gray",
    "rgb2centered_yuv",
    "rgb2gray",
    "rgb2yuv",
    "set_qat_mode",
]

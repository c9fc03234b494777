"""Quantization-aware and integer forms of operators, prepare_qat_fx and convert_fx."""

from __future__ import annotations

import importlib.metadata

from .capture.plain import plain_module
from .color import (
    BgrToYuv444,
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
from .eager import convert, prepare_calibration, prepare_qat
from .eager_fusion import fuse_known_modules, fuse_modules
from .errors import (
    ArgumentError,
    BpuQatError,
    CaptureError,
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
from .preparation.prepare import prepare_calibration_fx, prepare_qat_fx
from .preparation.report import DISPLAYS, LeftInFloat, PrepareReport, Quantized, SharedScale
from .preserve import preserved_paths, set_preserve_qat_mode
from .qat_mode import QATMode, get_qat_mode, qat_mode_scope, set_qat_mode
from .qat_module import QATModule
from .qtensor import QTensor
from .quantized_module import QuantizedModule

__version__ = importlib.metadata.version("bpu-qat-nn")

__all__ = [
    "DISPLAYS",
    "MOVES",
    "OPS",
    "ROWS",
    "ArgumentError",
    "BgrToYuv444",
    "BpuQatError",
    "CaptureError",
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
    "SharedScale",
    "__version__",
    "bgr2centered_gray",
    "bgr2centered_yuv",
    "bgr2gray",
    "bgr2rgb",
    "bgr2yuv",
    "centered_yuv2bgr",
    "centered_yuv2rgb",
    "convert",
    "convert_fx",
    "fuse_known_modules",
    "fuse_modules",
    "get_qat_mode",
    "plain_module",
    "prepare_calibration",
    "prepare_calibration_fx",
    "prepare_qat",
    "prepare_qat_fx",
    "preserved_paths",
    "qat_mode_scope",
    "rgb2bgr",
    "rgb2centered_gray",
    "rgb2centered_yuv",
    "rgb2gray",
    "rgb2yuv",
    "set_preserve_qat_mode",
    "set_qat_mode",
]

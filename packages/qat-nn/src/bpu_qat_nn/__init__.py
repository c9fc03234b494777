"""Quantization-aware and integer forms of operators, prepare_qat_fx and convert_fx."""

from __future__ import annotations

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
from .errors import BpuQatError, NotOnGridError, PrepareError, QTensorError, Refusal
from .graph_module import ObservedGraphModule, PrepareReport, QuantizedGraphModule
from .op import Operator, OpRow, Output, QATModule, QuantizedModule
from .ops import OPS, ROWS
from .ops.functional import QATFloatFunctional, QFunctional
from .ops.stubs import DeQuantStub, QuantStub
from .prepare import prepare_qat_fx
from .qat_mode import QATMode, get_qat_mode, qat_mode_scope, set_qat_mode
from .qtensor import MOVES, QTensor

__all__ = [
    "MOVES",
    "OPS",
    "ROWS",
    "BpuQatError",
    "DeQuantStub",
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
    "QuantizedGraphModule",
    "QuantizedModule",
    "Refusal",
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

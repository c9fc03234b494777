"""The vendor's toolkit, driven from outside: HBIR, compiler, simulator. It is optional and installed by the user."""

from __future__ import annotations

from .compile import check_model, compile_model, compile_programs, export_hbir
from .errors import HbdkError, HbdkNotFoundError, HbdkRefusalError
from .hbir import build_hbir
from .hbm import HbmModel, HbmOutput, read_hbm
from .options import CompileOptions
from .perf import LayerCost, Performance, perf_hbm, perf_model
from .process import Limits
from .simulate import simulate
from .tools import Toolkit, find_toolkit

__all__ = [
    "CompileOptions",
    "HbdkError",
    "HbdkNotFoundError",
    "HbdkRefusalError",
    "HbmModel",
    "HbmOutput",
    "LayerCost",
    "Limits",
    "Performance",
    "Toolkit",
    "build_hbir",
    "check_model",
    "compile_model",
    "compile_programs",
    "export_hbir",
    "find_toolkit",
    "perf_hbm",
    "perf_model",
    "read_hbm",
    "simulate",
]

"""Integer arithmetic of the Horizon / D-Robotics BPU, bit for bit, and Program, its portable model file."""

from __future__ import annotations

from importlib.metadata import version

from .builder import ProgramBuilder, Value
from .dtypes import DTYPES, QuantDType, qinfo, qint8, qint16, qint32, quant_dtype
from .errors import ArgumentError, BpuKernelsError, InvalidProgramError, Problem, SelfTestError, UnsupportedError
from .inputs import quantize_inputs
from .kernel import Kernel, TensorSpec
from .march import MARCHES, March, MarchRow, march_row
from .program import Cost, Program
from .program_file import load, loads, save, saves
from .program_graph import Node, ProgramInput, ProgramOutput, SelfTest
from .run import BACKENDS, dequantize_outputs, run
from .show import show
from .table import KERNELS

__all__ = [
    "BACKENDS",
    "DTYPES",
    "KERNELS",
    "MARCHES",
    "ArgumentError",
    "BpuKernelsError",
    "Cost",
    "InvalidProgramError",
    "Kernel",
    "March",
    "MarchRow",
    "Node",
    "Problem",
    "Program",
    "ProgramBuilder",
    "ProgramInput",
    "ProgramOutput",
    "QuantDType",
    "SelfTest",
    "SelfTestError",
    "TensorSpec",
    "UnsupportedError",
    "Value",
    "dequantize_outputs",
    "load",
    "loads",
    "march_row",
    "qinfo",
    "qint8",
    "qint16",
    "qint32",
    "quant_dtype",
    "quantize_inputs",
    "run",
    "save",
    "saves",
    "show",
]

__version__ = version("bpu-kernels")

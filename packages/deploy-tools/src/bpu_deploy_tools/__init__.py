"""Lowering of converted models to Programs, and graph surgery."""

from __future__ import annotations

from .errors import BpuDeployError, LoweringError, SurgeryError
from .lower import lower, torch_outputs
from .surgery import input_stubs, insert_after
from .yuv import insert_yuv_input, rgb_to_nv12

__all__ = [
    "BpuDeployError",
    "LoweringError",
    "SurgeryError",
    "input_stubs",
    "insert_after",
    "insert_yuv_input",
    "lower",
    "rgb_to_nv12",
    "torch_outputs",
]

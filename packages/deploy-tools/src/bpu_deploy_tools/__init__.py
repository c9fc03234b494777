"""From converted models to the board: Programs, segments, camera input, the vendor's toolkit, ONNX."""

from __future__ import annotations

from .errors import (
    BpuDeployError,
    LoweringError,
    ManifestError,
    OptionError,
    SourceError,
    StandInError,
    SurgeryError,
)
from .hbdk import (
    HbdkError,
    HbdkNotFoundError,
    HbdkRefusalError,
    Limits,
    Performance,
    check_model,
    compile_model,
    export_hbir,
    perf_model,
    simulate,
)
from .lowering.lower import lower, torch_outputs
from .onnx import OnnxNotFoundError, export_program_to_onnx, export_quantized_onnx, export_to_onnx
from .segments.ports import Manifest, ManifestEntry, Port
from .segments.split_program import ProgramStages, split_program
from .segments.split_segments import Segment, Segments, split_segments
from .sources import program_of
from .surgery import input_stubs, insert_after
from .torchscript import load_traced, save_traced, to_device
from .visualize import draw_program, visualize_model
from .yuv import insert_yuv_input, rgb_to_nv12, with_yuv_input

__all__ = [
    "BpuDeployError",
    "HbdkError",
    "HbdkNotFoundError",
    "HbdkRefusalError",
    "Limits",
    "LoweringError",
    "Manifest",
    "ManifestEntry",
    "ManifestError",
    "OnnxNotFoundError",
    "OptionError",
    "Performance",
    "Port",
    "ProgramStages",
    "Segment",
    "Segments",
    "SourceError",
    "StandInError",
    "SurgeryError",
    "check_model",
    "compile_model",
    "draw_program",
    "export_hbir",
    "export_program_to_onnx",
    "export_quantized_onnx",
    "export_to_onnx",
    "input_stubs",
    "insert_after",
    "insert_yuv_input",
    "load_traced",
    "lower",
    "perf_model",
    "program_of",
    "rgb_to_nv12",
    "save_traced",
    "simulate",
    "split_program",
    "split_segments",
    "to_device",
    "torch_outputs",
    "visualize_model",
    "with_yuv_input",
]

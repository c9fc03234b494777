"""ONNX: a Program as integer operators, bit for bit, or in real numbers with QuantizeLinear and DequantizeLinear.

The package ``onnx`` is optional (``pip install 'bpu-deploy-tools[onnx]'``) and imported when something is exported.
"""

from __future__ import annotations

from .export import OnnxNotFoundError, export_program_to_onnx, export_quantized_onnx, export_to_onnx

__all__ = ["OnnxNotFoundError", "export_program_to_onnx", "export_quantized_onnx", "export_to_onnx"]

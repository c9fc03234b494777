"""ONNX export: of float models and models under QAT, and of converted ones."""

from __future__ import annotations

from bpu_deploy_tools import export_quantized_onnx as export_quantized_onnx
from bpu_deploy_tools import export_to_onnx as export_to_onnx

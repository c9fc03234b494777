"""Lowering of converted models to Programs, and graph surgery."""

from __future__ import annotations

from .errors import BpuDeployError, LoweringError, SurgeryError
from .lower import lower, torch_outputs

__all__ = ["BpuDeployError", "LoweringError", "SurgeryError", "lower", "torch_outputs"]

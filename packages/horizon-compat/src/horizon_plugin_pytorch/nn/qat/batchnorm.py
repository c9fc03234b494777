"""Batch normalization that no layer took in, under quantization-aware training."""

from __future__ import annotations

from bpu_qat_nn.qat import BatchNorm2d as BatchNorm2d

__all__ = ["BatchNorm2d"]

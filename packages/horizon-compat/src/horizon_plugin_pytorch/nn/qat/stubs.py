"""Stubs under quantization-aware training."""

from __future__ import annotations

from bpu_qat_nn.qat import DeQuantStub as DeQuantStub
from bpu_qat_nn.qat import QuantStub as QuantStub

__all__ = ["DeQuantStub", "QuantStub"]

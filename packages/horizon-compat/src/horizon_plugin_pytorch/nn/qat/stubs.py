"""Stubs under quantization-aware training."""

from __future__ import annotations

from bpu_qat_nn.ops.stubs import QATDeQuantStub as DeQuantStub
from bpu_qat_nn.ops.stubs import QATQuantStub as QuantStub

__all__ = ["DeQuantStub", "QuantStub"]

"""Functions of one variable by lookup under quantization-aware training."""

from __future__ import annotations

from bpu_qat_nn.qat import Table as SegmentLUT

__all__ = ["SegmentLUT"]

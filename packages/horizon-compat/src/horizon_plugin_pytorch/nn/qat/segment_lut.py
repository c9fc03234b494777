"""Functions of one variable by lookup under quantization-aware training."""

from __future__ import annotations

from bpu_qat_nn.ops.table import QATTable as SegmentLUT

__all__ = ["SegmentLUT"]

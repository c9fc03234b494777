"""Functions of one variable by lookup on integers."""

from __future__ import annotations

from bpu_qat_nn.ops.table import QuantizedTable as SegmentLUT

__all__ = ["SegmentLUT"]

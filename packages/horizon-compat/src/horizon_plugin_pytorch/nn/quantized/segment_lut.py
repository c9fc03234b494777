"""Functions of one variable by lookup on integers."""

from __future__ import annotations

from bpu_qat_nn.quantized import Table as SegmentLUT

__all__ = ["SegmentLUT"]

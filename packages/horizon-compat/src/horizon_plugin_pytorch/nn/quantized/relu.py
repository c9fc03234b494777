"""ReLU by itself on integers."""

from __future__ import annotations

from bpu_qat_nn.quantized import Clip as ReLU

__all__ = ["ReLU"]

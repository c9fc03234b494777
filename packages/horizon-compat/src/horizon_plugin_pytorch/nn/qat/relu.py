"""ReLU by itself under quantization-aware training."""

from __future__ import annotations

from bpu_qat_nn.qat import Clip as ReLU

__all__ = ["ReLU"]

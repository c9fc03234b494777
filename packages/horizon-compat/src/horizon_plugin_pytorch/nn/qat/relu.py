"""ReLU by itself under quantization-aware training."""

from __future__ import annotations

from bpu_qat_nn.ops.clip import QATClip as ReLU

__all__ = ["ReLU"]

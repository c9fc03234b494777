"""ReLU by itself on integers."""

from __future__ import annotations

from bpu_qat_nn.ops.clip import QuantizedClip as ReLU

__all__ = ["ReLU"]

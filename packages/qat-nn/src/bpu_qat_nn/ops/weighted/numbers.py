"""Where the few numbers of a layer are computed: in numpy on the CPU, which is quicker at it, and in torch elsewhere.

Both are float64 and give the same numbers. On other devices a way through numpy would wait for the device, and tracing
sees torch alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Numbers"]


@dataclass(frozen=True)
class Numbers:
    """A namespace of arrays, and the way there and back."""

    xp: Any
    """numpy or torch."""

    @classmethod
    def of(cls, device: torch.device) -> Numbers:
        """Return where to compute for tensors of a device."""
        return cls(np if device.type == "cpu" and not torch.compiler.is_compiling() else torch)

    def __call__(self, tensor: Tensor) -> Any:
        """Return a tensor's numbers in float64, a copy: numpy would pin the storage, which FSDP frees and refills."""
        return tensor.detach().double() if self.xp is torch else tensor.detach().to(torch.float64, copy=True).numpy()

    def tensor(self, numbers: Any) -> Tensor:
        """Return numbers as a tensor."""
        return torch.as_tensor(numbers)

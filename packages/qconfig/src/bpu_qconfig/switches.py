"""The two switches of a fake quantizer: whether it observes, and whether it quantizes."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Switches"]


class Switches:
    """Mixin with ``fake_quant_enabled`` and ``observer_enabled``, both on at first.

    They are uint8 tensors of shape [1] that always stay on the CPU, so that reading them never waits for a GPU. They
    are no buffers: a checkpoint does not change what ``set_fake_quantize`` chose.
    """

    fake_quant_enabled: Tensor
    """Not 0 if ``forward`` quantizes."""
    observer_enabled: Tensor
    """Not 0 if ``forward`` observes."""

    def reset_switches(self) -> None:
        """Make both switches, switched on; once, by the constructor."""
        self.fake_quant_enabled = torch.ones(1, dtype=torch.uint8, device="cpu")
        self.observer_enabled = torch.ones(1, dtype=torch.uint8, device="cpu")

    def enable_fake_quant(self, enabled: bool = True) -> None:
        """Switch fake quantization on or off."""
        self.fake_quant_enabled.fill_(int(enabled))

    def disable_fake_quant(self) -> None:
        """Switch fake quantization off: ``forward`` returns its input."""
        self.enable_fake_quant(False)

    def enable_observer(self, enabled: bool = True) -> None:
        """Switch observation on or off."""
        self.observer_enabled.fill_(int(enabled))

    def disable_observer(self) -> None:
        """Switch observation off: the scale stays."""
        self.enable_observer(False)

"""FixedScaleObserver: a scale that is known beforehand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InvalidQConfigError
from ..scale import positive_scale
from .base import Observer

__all__ = ["FixedScaleObserver"]


class FixedScaleObserver(Observer):
    """Gives the same scale whatever it sees.

    Args:
        scale: the scale, positive; a number, or one value per channel on ``ch_axis``.
        zero_point: must be 0.

    The other arguments are those of ``Observer``.
    """

    fixed = True

    scale: Tensor

    def __init__(
        self,
        scale: float | Sequence[float] | Tensor,
        zero_point: int | Tensor = 0,
        dtype: object = "qint8",
        qscheme: torch.qscheme = torch.per_tensor_symmetric,
        ch_axis: int = -1,
        quant_min: int | None = None,
        quant_max: int | None = None,
    ) -> None:
        super().__init__(1.0, ch_axis, dtype, qscheme, quant_min, quant_max)
        if torch.as_tensor(zero_point).any():
            raise InvalidQConfigError(f"expected zero_point 0, got {zero_point}; the BPU is symmetric")
        # Not saved: the scale of the fake quantizer is, and the range says the same.
        self.register_buffer("scale", positive_scale(scale), persistent=False)
        self.set_scale(self.scale)

    def forward(self, x: Tensor) -> Tensor:
        """Return the batch as it came."""
        return x

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Return the given scale and zero."""
        return self.scale.clone(), torch.zeros_like(self.scale, dtype=torch.int64)

    def set_scale(self, scale: Tensor) -> None:
        """Replace the given scale."""
        if not self.is_per_channel and scale.numel() != 1:
            raise InvalidQConfigError(
                f"expected one scale, got {scale.numel()}; for one per channel give qscheme=torch.per_channel_symmetric"
            )
        super().set_scale(scale)
        self.scale.data = scale.detach().clone().to(self.scale.device)

    def extra_repr(self) -> str:
        """Show the scale."""
        return f"scale={self.scale}"

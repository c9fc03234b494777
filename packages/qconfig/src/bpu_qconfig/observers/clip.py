"""ClipObserver and ClipStdObserver: ranges cut at given bounds, or so many standard deviations from the mean."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidQConfigError
from .base import Observer
from .reduce import reduce_sum

__all__ = ["ClipObserver", "ClipStd", "ClipStdObserver"]


class ClipObserver(Observer):
    """Cuts the range of each batch at bounds that are known beforehand.

    Args:
        low: no value below it counts; None for no bound.
        high: no value above it counts; None for no bound.

    The other arguments are those of ``Observer``.
    """

    def __init__(
        self,
        low: float | None = None,
        high: float | None = None,
        averaging_constant: float = 0.01,
        ch_axis: int = -1,
        dtype: object = "qint8",
        qscheme: torch.qscheme = torch.per_tensor_symmetric,
        quant_min: int | None = None,
        quant_max: int | None = None,
        is_sync_quantize: bool = False,
        factory_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            averaging_constant, ch_axis, dtype, qscheme, quant_min, quant_max, is_sync_quantize, factory_kwargs
        )
        self.low = -torch.inf if low is None else float(low)
        self.high = torch.inf if high is None else float(high)
        if not self.low < self.high:
            raise InvalidQConfigError(f"expected low < high, got {low!r} and {high!r}")

    def narrow(self, x: Tensor, ends: Tensor) -> Tensor:
        """Cut the range at the bounds."""
        low, high = ((sign * end).clamp(self.low, self.high) for sign, end in zip((-1.0, 1.0), ends, strict=True))
        return torch.stack([-low, high])


class ClipStdObserver(Observer):
    """Cuts the range of each batch at its mean plus and minus a number of standard deviations.

    Args:
        deviations: that number, positive.

    The other arguments are those of ``Observer``.
    """

    def __init__(
        self,
        deviations: float = 3.0,
        averaging_constant: float = 0.01,
        ch_axis: int = -1,
        dtype: object = "qint8",
        qscheme: torch.qscheme = torch.per_tensor_symmetric,
        quant_min: int | None = None,
        quant_max: int | None = None,
        is_sync_quantize: bool = False,
        factory_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            averaging_constant, ch_axis, dtype, qscheme, quant_min, quant_max, is_sync_quantize, factory_kwargs
        )
        if not deviations > 0.0:
            raise InvalidQConfigError(f"expected a positive number of deviations, got {deviations!r}")
        self.deviations = deviations

    def narrow(self, x: Tensor, ends: Tensor) -> Tensor:
        """Cut the range at mean - deviations * std and mean + deviations * std, std without Bessel's correction."""
        rows = self.rows(x).to(torch.float64)
        count = torch.full_like(rows[:, 0], rows.shape[1])
        moments = torch.stack([count, rows.sum(1), rows.square().sum(1)])
        if self.is_sync_quantize:
            reduce_sum(moments)
        count, total, squares = moments
        mean = total / count
        reach = self.deviations * (squares / count - mean.square()).clamp(min=0.0).sqrt()
        cut = torch.stack([reach - mean, reach + mean]).to(torch.float32)
        return torch.minimum(ends, cut.reshape(ends.shape))


ClipStd = ClipStdObserver

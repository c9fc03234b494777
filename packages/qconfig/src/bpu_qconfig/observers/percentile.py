"""PercentileObserver: leaves out the few largest values of each batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidQConfigError
from .histogram import Histogram, HistogramObserver, checked_bins

__all__ = ["PercentileObserver"]


class PercentileObserver(HistogramObserver):
    """Cuts the range of each batch at a percentile of |x|, then averages like all observers.

    Args:
        percentile: share of the values to keep within range, in percent, above 0 and at most 100.
        bins: of the histogram; the threshold is the end of a bin.

    The other arguments are those of ``Observer``.
    """

    def __init__(
        self,
        percentile: float = 99.99,
        bins: int = 2048,
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
        if not 0.0 < percentile <= 100.0:
            raise InvalidQConfigError(f"expected a percentile above 0 and at most 100, got {percentile!r}")
        self.percentile = percentile
        self.bins = checked_bins(bins)

    def threshold(self, histogram: Histogram) -> Tensor:
        """Return the percentile."""
        return histogram.end_of(histogram.percentiles([self.percentile])[:, 0])

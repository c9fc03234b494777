"""MixObserver: the best of several percentiles."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from .histogram import Histogram, HistogramObserver, squared_errors

__all__ = ["MixObserver"]


class MixObserver(HistogramObserver):
    """Tries several percentiles of |x| and keeps the one with the least L2 error. Arguments as in ``Observer``."""

    bins = 2048
    percentiles: ClassVar[tuple[float, ...]] = (100.0, 99.999, 99.995, 99.99, 99.9, 99.0)

    def threshold(self, histogram: Histogram) -> Tensor:
        """Return the best of the percentiles; the largest of those that are equally good."""
        limits = histogram.percentiles(self.percentiles)
        errors = squared_errors(limits.to(torch.float64), histogram.bins, self.quant_min, self.quant_max)
        best = (errors @ histogram.counts.unsqueeze(-1)).argmin(1)
        return histogram.end_of(limits.gather(1, best).squeeze(1))

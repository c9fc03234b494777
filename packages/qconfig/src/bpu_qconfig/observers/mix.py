"""MixObserver: the best of several percentiles."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from .histogram import Histogram, HistogramObserver

__all__ = ["MixObserver"]


class MixObserver(HistogramObserver):
    """Tries several percentiles of |x| and keeps the one with the least L2 error. Arguments as in ``Observer``."""

    bins = 2048
    percentiles: ClassVar[tuple[float, ...]] = (100.0, 99.999, 99.995, 99.99, 99.9, 99.0)

    def threshold(self, histogram: Histogram) -> Tensor:
        """Return the best of the percentiles; the largest of those that are equally good."""
        return self.least_error(histogram, map(histogram.percentile, self.percentiles))

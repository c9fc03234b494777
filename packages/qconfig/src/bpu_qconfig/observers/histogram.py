"""The histogram of |x| that the percentile, MSE, KL and mix observers choose their thresholds from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from bpu_kernels.torch_ops import count_magnitudes, has_passes

from ..errors import InvalidQConfigError
from ..scale import scale_from_amplitude
from .base import Observer
from .reduce import reduce_sum

__all__ = ["Histogram", "HistogramObserver", "checked_bins", "squared_errors"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Histogram:
    """Counts of |x| in equal bins over [0, amplitude], one row per channel (one row if per tensor)."""

    counts: Tensor
    """[rows, bins], float64, whole numbers."""
    amplitude: Tensor
    """[rows], float32; the upper end of the last bin, which belongs to it."""

    @classmethod
    def of(cls, rows: Tensor, amplitude: Tensor, bins: int) -> Histogram:
        """Count the values of [rows, n], none of which exceeds its row's amplitude."""
        native = has_passes(rows) and not torch.compiler.is_compiling()
        counted = count_magnitudes if native else _count_magnitudes
        return cls(counts=counted(rows, amplitude, bins), amplitude=amplitude)

    @property
    def bins(self) -> int:
        """Number of bins."""
        return self.counts.shape[1]

    def percentiles(self, percents: Sequence[float]) -> Tensor:
        """Return per row and percentage how many bins it takes to hold that share of the values; int64, 1 to bins."""
        cumulated = self.counts.cumsum(1)
        return torch.searchsorted(cumulated, cumulated[:, -1:] * _shares(tuple(percents), cumulated.device)) + 1

    def end_of(self, bins: Tensor) -> Tensor:
        """Return the upper end of so many bins, one number per row; float32."""
        return self.amplitude * (bins.to(torch.float32) / self.bins)


@cache
def _shares(percents: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor([percent / 100.0 for percent in percents], dtype=torch.float64, device=device)


def squared_errors(limits: Tensor, bins: int, quant_min: int, quant_max: int) -> Tensor:
    """Return the squared error of rounding and clamping a value of each bin, in squares of a bin's width.

    A value counts as the middle of its bin, and as 0 in the first: most values there are zeros of a ReLU, and all of
    them round to 0 unless the range is cut to little.

    Args:
        limits: largest values of ranges, in bins, float64 of any shape.
        bins: their number.
        quant_min: smallest integer.
        quant_max: largest integer.

    Returns:
        float64, one axis more, of the bins.
    """
    middles = torch.arange(bins, dtype=torch.float64, device=limits.device) + 0.5
    middles[:1].zero_()  # middles[0] = 0.0 would synchronise with a GPU
    step = scale_from_amplitude(limits.unsqueeze(-1), quant_min, quant_max)
    return (middles / step).round_().clamp_(max=quant_max).mul_(step).sub_(middles).square_()


def _count_magnitudes(rows: Tensor, amplitude: Tensor, bins: int) -> Tensor:
    """Return how many values of each row lie in each bin, float64 [rows, bins]; the reference of the native count."""
    channels = rows.shape[0]
    bins_per_unit = torch.where(amplitude > 0, bins / amplitude, 0.0)
    # NaN, which is refused elsewhere or later, must not become an index out of range: clamp the integer.
    index = (rows.to(torch.float32).abs() * bins_per_unit.unsqueeze(1)).to(torch.int64).clamp_(0, bins - 1)
    index += torch.arange(channels, device=rows.device).unsqueeze(1) * bins
    # index_add_ needs no host synchronisation on a GPU, as bincount does, and is as fast on the CPU.
    counts = torch.zeros(channels * bins, dtype=torch.int64, device=rows.device)
    counts.index_add_(0, index.flatten(), counts.new_ones(1).expand(index.numel()))
    return counts.reshape(channels, bins).to(torch.float64)


class HistogramObserver(Observer):
    """Base of the observers that cut the range of each batch at a threshold found from its histogram.

    A histogram lives for one batch; what is averaged, saved and loaded are the thresholds.
    """

    bins: int
    """Number of bins of the histogram."""

    def threshold(self, histogram: Histogram) -> Tensor:
        """Return the largest |x| to represent, float32 [rows]."""
        raise NotImplementedError

    def narrow(self, x: Tensor, ends: Tensor) -> Tensor:
        """Cut the range at the threshold, on both sides of zero."""
        amplitude = ends.amax(0)
        histogram = Histogram.of(self._any_order(x), amplitude.reshape(-1), self.bins)
        if self.is_sync_quantize:  # the amplitude has been reduced already, so the bins agree
            reduce_sum(histogram.counts)
        limit = self.threshold(histogram).reshape(amplitude.shape)
        return torch.clamp(ends, -limit, limit)

    def _any_order(self, x: Tensor) -> Tensor:
        """Return the rows of a batch, their elements in any order: for one row, that of memory, which needs no copy."""
        dense = not self.is_per_channel and x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
        return self.rows(x.permute(0, 2, 3, 1) if dense else x)


def checked_bins(bins: int) -> int:
    """Return the number of bins if it makes a histogram."""
    if bins < 2:
        raise InvalidQConfigError(f"expected at least 2 bins, got {bins!r}")
    return bins

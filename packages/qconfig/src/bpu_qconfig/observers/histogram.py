"""The histogram of |x| that the percentile, MSE, KL and mix observers choose their thresholds from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bpu_kernels.torch_ops import count_magnitudes, has_passes

from ..errors import InvalidQConfigError
from ..scale import scale_from_amplitude
from .base import Observer
from .reduce import reduce_sum

__all__ = ["Histogram", "HistogramObserver", "checked_bins"]


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
        bins_per_unit = torch.where(amplitude > 0, bins / amplitude, 0.0)
        native = has_passes(rows) and not torch.compiler.is_compiling()
        counted = count_magnitudes if native else _count_magnitudes
        return cls(counts=counted(rows, bins_per_unit, bins).to(torch.float64), amplitude=amplitude)

    @property
    def bins(self) -> int:
        """Number of bins."""
        return self.counts.shape[1]

    def percentile(self, percent: float) -> Tensor:
        """Return per row the end of the first bin up to which at least ``percent`` of the values lie; float32."""
        cumulated = self.counts.cumsum(1)
        reached = cumulated >= cumulated[:, -1:] * (percent / 100.0)
        first = reached.to(torch.int8).argmax(1)
        return self.amplitude * ((first + 1).to(torch.float32) / self.bins)

    @cached_property
    def middles(self) -> Tensor:
        """[rows, bins], float32; what the values of a bin count as: its middle, and 0 in the first.

        Most values of the first bin are zeros of a ReLU, and all of them round to 0 unless the range is cut to little.
        """
        places = torch.arange(self.bins, dtype=torch.float32, device=self.counts.device) + 0.5
        places[:1].zero_()  # places[0] = 0.0 would synchronise with a GPU
        return places * (self.amplitude / self.bins).unsqueeze(1)

    def squared_error(self, scale: Tensor, quant_max: int) -> Tensor:
        """Return per row the summed squared error of rounding to multiples of a scale and clamping; float64."""
        step = scale.unsqueeze(1)
        residual = (self.middles / step).round_().clamp_(max=quant_max).mul_(step).sub_(self.middles)
        return residual.square_().mul_(self.counts).sum(1, dtype=torch.float64)


def _count_magnitudes(rows: Tensor, bins_per_unit: Tensor, bins: int) -> Tensor:
    """Return how many values of each row lie in each bin, int64 [rows, bins]; the reference of the native count."""
    channels = rows.shape[0]
    # NaN, which is refused elsewhere or later, must not become an index out of range: clamp the integer.
    index = (rows.to(torch.float32).abs() * bins_per_unit.unsqueeze(1)).to(torch.int64).clamp_(0, bins - 1)
    index += torch.arange(channels, device=rows.device).unsqueeze(1) * bins
    # index_add_ needs no host synchronisation on a GPU, as bincount does, and is as fast on the CPU.
    counts = torch.zeros(channels * bins, dtype=torch.int64, device=rows.device)
    counts.index_add_(0, index.flatten(), counts.new_ones(1).expand(index.numel()))
    return counts.reshape(channels, bins)


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

    def least_error(self, histogram: Histogram, candidates: Iterable[Tensor]) -> Tensor:
        """Return per row the candidate threshold with the least squared error, the first among equals."""
        best = histogram.amplitude
        least = torch.full_like(best, torch.inf, dtype=torch.float64)
        for candidate in candidates:
            scale = scale_from_amplitude(candidate, self.quant_min, self.quant_max)
            error = histogram.squared_error(scale, self.quant_max)
            best = torch.where(error < least, candidate, best)
            least = torch.minimum(error, least)
        return best


def checked_bins(bins: int) -> int:
    """Return the number of bins if it makes a histogram."""
    if bins < 2:
        raise InvalidQConfigError(f"expected at least 2 bins, got {bins!r}")
    return bins

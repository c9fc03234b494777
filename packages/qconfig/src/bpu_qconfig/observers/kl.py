"""KLObserver: cuts the range where the quantized distribution diverges least from the original one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidQConfigError
from .histogram import Histogram, HistogramObserver, checked_bins

__all__ = ["KLObserver"]

_NEVER = 1e-12
"""Stands for probability 0 in the quantized distribution, so that a cut which loses values is bad, but comparable."""


class KLObserver(HistogramObserver):
    """Chooses the threshold with the least Kullback-Leibler divergence.

    For each cut at the end of a bin, the histogram up to it, with the rest added to its last bin, is the distribution
    P; the same bins merged into as many levels as there are integers >= 0, each level spread evenly over its occupied
    bins, are Q. The cut with the least sum of P * log(P / Q) wins (S. Migacz, 8-bit inference with TensorRT, 2017).
    Where there are no more bins than levels, as with qint16, nothing can be told apart and the range is not cut.

    Args:
        bins: of the histogram.
        update_interval: analyse every so many batches only. With fewer batches than that nothing is ever observed.

    The other arguments are those of ``Observer``.
    """

    def __init__(
        self,
        bins: int = 512,
        update_interval: int = 1,
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
        if update_interval < 1:
            raise InvalidQConfigError(f"expected an update_interval of at least 1, got {update_interval!r}")
        self.bins = checked_bins(bins)
        self.update_interval = update_interval

    def skips_batch(self) -> bool:
        """Whether the interval has not passed yet."""
        return self.batches % self.update_interval != 0

    def threshold(self, histogram: Histogram) -> Tensor:
        """Return the best cut; the largest of those that are equally good."""
        levels = self.quant_max + 1
        if histogram.bins <= levels:
            return histogram.amplitude
        # From the largest to the smallest: argmin returns the first among equals.
        cuts = torch.arange(histogram.bins, levels - 1, -1, device=histogram.counts.device)
        steps_down = torch.stack([_divergences(row, cuts, levels).argmin() for row in histogram.counts])
        return histogram.amplitude * ((histogram.bins - steps_down).to(torch.float32) / histogram.bins)


def _divergences(counts: Tensor, cuts: Tensor, levels: int) -> Tensor:
    """Return the divergence, up to a constant factor, of one histogram [bins] at each cut [cuts]; float64."""
    bins = torch.arange(counts.numel(), device=counts.device)
    inside = bins < cuts.unsqueeze(1)
    kept = counts * inside
    reference = kept.scatter_add(1, cuts.unsqueeze(1) - 1, (counts * ~inside).sum(1, keepdim=True))

    level = torch.where(inside, bins * levels // cuts.unsqueeze(1), 0)
    occupied = ((reference > 0) & inside).to(counts.dtype)
    empty = counts.new_zeros(cuts.numel(), levels)
    total, places = empty.scatter_add(1, level, kept), empty.scatter_add(1, level, occupied)
    spread = (total / places.clamp(min=1.0)).gather(1, level) * occupied

    p = reference / reference.sum(1, keepdim=True)
    q = (spread / spread.sum(1, keepdim=True).clamp(min=_NEVER)).clamp(min=_NEVER)
    divergence: Tensor = torch.special.xlogy(p, p / q).sum(1)
    return divergence

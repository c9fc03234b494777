"""KLObserver: cuts the range where the quantized distribution diverges least from the original one."""

from __future__ import annotations

from functools import cache
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
        steps_down = torch.stack([_divergences(row, levels).argmin() for row in histogram.counts])
        return histogram.end_of(histogram.bins - steps_down)


def _divergences(counts: Tensor, levels: int) -> Tensor:
    """Return the divergence, up to a constant factor and summand, of one histogram [bins] at each cut; float64.

    Cuts go from the largest, all bins, down to as many bins as there are levels. Everything is a difference of
    cumulated sums, since the bins of a level follow one another; sum(P * log P) - sum(P * log Q), where Q is the same
    in all occupied bins of a level.
    """
    bins = counts.numel()
    cuts, borders = _cuts_and_borders(bins, levels, counts.device)
    values, occupied = _cumulated(counts), _cumulated((counts > 0).to(counts.dtype))
    kept, last = values[cuts], counts[cuts - 1]
    lost = values[-1] - kept  # goes to the last bin of P, which it may be alone in
    # index_select takes a third of the time that values[borders] does.
    total, places = (
        each.index_select(0, borders.flatten()).view_as(borders).diff(dim=1) for each in (values, occupied)
    )
    places[:, -1] += (last == 0) & (lost > 0)

    quantized = (total / places.clamp_(min=1.0) / kept.clamp(min=_NEVER).unsqueeze(1)).clamp_(min=_NEVER)
    total[:, -1] += lost
    entropy = _cumulated(torch.xlogy(counts, counts))[cuts - 1] + torch.xlogy(last + lost, last + lost)
    return entropy - total.mul_(quantized.log_()).sum(1)


def _cumulated(counts: Tensor) -> Tensor:
    """Return the sums of the first 0, 1, .. all counts."""
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0))


@cache
def _cuts_and_borders(bins: int, levels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the cuts, and per cut the first bin of each level and the end of the last; b * levels // cut has bin b."""
    cuts = torch.arange(bins, levels - 1, -1, device=device)
    return cuts, -(-torch.arange(levels + 1, device=device) * cuts.unsqueeze(1) // levels)

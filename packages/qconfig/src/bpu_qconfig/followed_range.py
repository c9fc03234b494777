"""The range of an observer as the native engine moves it, in one call, where it knows the observer's rule."""

from __future__ import annotations

import torch
from torch import Tensor

from bpu_kernels.torch_ops import Range, follow_ends, has_passes, in_real_memory, observe_rows, row_ends

from .observers import (
    ClipObserver,
    ClipStdObserver,
    KLObserver,
    MinMaxObserver,
    MixObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    MSEObserver,
    Observer,
    PercentileObserver,
)

__all__ = ["FROM_EXTREMES", "follow_natively", "followed_range"]

FROM_EXTREMES = (MinMaxObserver, MovingAverageMinMaxObserver)
"""Observers to whom the smallest and the largest value of a tensor tell all that they want to know."""
_WHOLE_RANGE = (*FROM_EXTREMES, MovingAveragePerChannelMinMaxObserver)
"""Observers that average all of a batch's range."""
_AVERAGES = (*_WHOLE_RANGE, ClipObserver, ClipStdObserver, KLObserver, MixObserver, MSEObserver, PercentileObserver)
"""Observers whose rule the engine has: the plain moving average, of a range that some of them narrow before."""


def followed_range(observer: Observer, scale: Tensor, entries: int, *, observes: bool = True) -> Range:
    """Return what the engine reads and writes.

    Args:
        observer: its range is moved, where the engine knows its rule.
        scale: of the fake quantizer, which follows.
        entries: 1, or the number of channels.
        observes: whether the range is to be moved at all.
    """
    min_val, max_val = observer.min_val, observer.max_val
    return Range(
        min_val=min_val,
        max_val=max_val,
        scale=scale if scale.numel() == entries else scale.expand(entries).contiguous(),
        constant=observer.averaging_constant,
        quant_min=observer.quant_min,
        quant_max=observer.quant_max,
        observes=(
            observes
            and type(observer) in _AVERAGES
            and not observer.is_sync_quantize
            and scale.numel() == min_val.numel() == entries
        ),
    )


def follow_natively(observer: Observer, scale: Tensor, x: Tensor) -> bool:
    """Take a batch into the range and let the scale follow; False, and nothing done, where the engine cannot.

    It cannot for values that are not finite, of which the observer itself tells.
    """
    entries = scale.numel()
    in_rows = not observer.is_per_channel or (observer.ch_axis == 0 and x.shape[:1] == (entries,))
    if torch.compiler.is_compiling() or not in_rows or not in_real_memory(x) or not has_passes(x):
        return False
    by = followed_range(observer, scale, entries)
    if not by.observes:
        return False
    if type(observer) in _WHOLE_RANGE:
        if not observe_rows(x, by):
            return False
        observer.batches += 1
        return True
    ends = row_ends(x, entries)
    if ends is None:
        return False
    observer.batches += 1
    if not observer.skips_batch():
        follow_ends(observer.narrow(x, ends), by)
    return True

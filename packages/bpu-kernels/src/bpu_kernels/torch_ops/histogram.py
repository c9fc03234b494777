"""Histograms of magnitudes in one pass of the native engine, for observers."""

from __future__ import annotations

import torch
from torch import Tensor

from .layer_pass import run_pass

__all__ = ["count_magnitudes"]


def count_magnitudes(rows: Tensor, amplitude: Tensor, bins: int) -> Tensor:
    """Return how many values of each row have the index ``floor(|x| * (bins / amplitude))``, at most ``bins - 1``.

    Args:
        rows: float32 on the CPU, [rows, n].
        amplitude: float32, one per row; where it is 0, all values have the index 0.
        bins: at most 2**24, up to which float32 holds every index.

    Returns:
        float64, whole numbers, [rows, bins].
    """
    x, ends = rows.contiguous(), amplitude.to(torch.float32).contiguous()
    counts = torch.empty(x.shape[0], bins, dtype=torch.float64)
    run_pass("bpu_histogram", x.data_ptr(), *x.shape, ends.data_ptr(), bins, counts.data_ptr())
    return counts

"""Histograms of magnitudes in one pass of the native engine, for observers."""

from __future__ import annotations

import torch
from torch import Tensor

from .layer_pass import run_pass

__all__ = ["count_magnitudes"]


def count_magnitudes(rows: Tensor, bins_per_unit: Tensor, bins: int) -> Tensor:
    """Return how many values of each row have the index ``floor(|x| * bins_per_unit)``, at most ``bins - 1``.

    Args:
        rows: float32 on the CPU, [rows, n].
        bins_per_unit: float32, one per row.
        bins: at most 2**24, up to which float32 holds every index.

    Returns:
        int64, [rows, bins].
    """
    x, factor = rows.contiguous(), bins_per_unit.to(torch.float32).contiguous()
    counts = torch.zeros(x.shape[0], bins, dtype=torch.int64)
    run_pass("bpu_histogram", x.data_ptr(), *x.shape, factor.data_ptr(), bins, counts.data_ptr())
    return counts

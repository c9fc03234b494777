"""Statistics of all ranks of torch.distributed; without an initialised group a tensor comes back as it went in."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor

__all__ = ["reduce_max", "reduce_sum"]


def reduce_max(tensor: Tensor) -> Tensor:
    """Return the elementwise maximum over all ranks."""
    if _in_group():
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor


def reduce_sum(tensor: Tensor) -> Tensor:
    """Return the elementwise sum over all ranks."""
    if _in_group():
        dist.all_reduce(tensor, op=dist.ReduceOp.SUM)
    return tensor


def _in_group() -> bool:
    return dist.is_available() and dist.is_initialized()

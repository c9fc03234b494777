"""Let the observers of a model see the data of all ranks under torch.distributed."""

from __future__ import annotations

from torch import nn

from .observers import Observer

__all__ = ["synchronize_observers"]


def synchronize_observers(model: nn.Module, synchronized: bool = True) -> None:
    """Switch the reduction of statistics over all ranks on or off, for every observer of a model; in place.

    The same as ``is_sync_quantize`` in the qconfig. Without it each rank would observe its own share of the data, and
    DistributedDataParallel would overwrite the statistics of all by those of rank 0. Every rank must run the same
    modules the same number of times while observers are on. Without an initialised process group nothing is reduced.

    Args:
        model: prepared for calibration or training, wrapped or not.
        synchronized: whether statistics are reduced.
    """
    for module in model.modules():
        if isinstance(module, Observer):
            module.is_sync_quantize = synchronized

"""Histograms for tensorboard, which is no dependency: it has to be installed where it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from torch import Tensor

from ..errors import ArgumentError

__all__ = ["expect_tensorboard", "write_histograms"]


def expect_tensorboard() -> None:
    """Raise ArgumentError if tensorboard is not installed."""
    if find_spec("tensorboard") is None:
        raise ArgumentError("with_tensorboard needs tensorboard, which is not installed: pip install tensorboard")


def write_histograms(tensors: Mapping[str, Tensor], folder: str | None) -> None:
    """Write one histogram for each tensor, by name, into a folder; "runs/..." if None."""
    expect_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(folder)
    for name, tensor in tensors.items():
        writer.add_histogram(name, tensor.detach().float().cpu())
    writer.close()

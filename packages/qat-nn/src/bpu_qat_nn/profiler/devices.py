"""Run a model on another device for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

__all__ = ["inputs_on", "on_device"]


@contextmanager
def on_device(model: nn.Module, device: torch.device | str | None) -> Iterator[None]:
    """Move a model to a device, and back to that of its first tensor; None leaves it where it is."""
    tensors = (*model.parameters(), *model.buffers())
    before = next((tensor.device for tensor in tensors), None)
    if device is None or before is None:
        yield
        return
    model.to(device)
    try:
        yield
    finally:
        model.to(before)


def inputs_on(inputs: Any, device: torch.device | str | None) -> Any:
    """Return inputs with all tensors on a device; None leaves them where they are."""
    if device is None:
        return inputs
    return tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, inputs)

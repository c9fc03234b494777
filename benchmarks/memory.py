"""What a training step keeps in memory: tensors saved for the gradient, and the growth of the process at its peak."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import torch
from setting import Setting, inputs, training_step
from subjects import float_network, prepared
from torch import Tensor, nn

from bpu_qconfig import FakeQuantState

__all__ = ["peak_resident", "saved_bytes"]


def saved_bytes(model: nn.Module, x: Tensor) -> int:
    """Return the bytes that are saved for the gradient in a forward pass, each storage once and parameters not."""
    parameters = {each.untyped_storage().data_ptr() for each in model.parameters()}
    found: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            found[storage.data_ptr()] = storage  # held, so that its address stays its own
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = model(x)
    total: int = sum(storage.nbytes() for storage in found.values())
    del y
    return total


def _resident_peak() -> int:
    """Return the peak of this process in bytes; what getrusage tells is inherited from the parent."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024


def _grow(setting: Setting, quantized: bool) -> int:
    """Return by how many bytes two steps raise the peak of this process, at least 1."""
    model, x = float_network(setting), inputs(setting)
    model = prepared(model, FakeQuantState.QAT) if quantized else model.train()
    step = training_step(model, x)
    before = _resident_peak()
    step()
    step()
    return max(1, _resident_peak() - before)


def peak_resident(setting: Setting, *, quantized: bool) -> int:
    """Return by how many bytes training raises the resident memory of a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        grown: int = pool.apply(_grow, (setting, quantized))
    return grown

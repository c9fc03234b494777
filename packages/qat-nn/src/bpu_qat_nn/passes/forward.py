"""Run calibration batches through a model in a chosen state, and leave the model's modes as they were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from bpu_qconfig import FakeQuantize

from ..errors import ArgumentError
from ..ops.weighted.layer import WeightedQAT

__all__ = ["evaluated", "has_any", "run_batches", "tied_parameters", "weighted_layers"]


@contextmanager
def evaluated(model: nn.Module, *, quantizes: bool | None = None) -> Iterator[None]:
    """Put a model into evaluation, without observing, with or without fake quantization (None: as it is); and back."""
    modes = [(module, module.training) for module in model.modules()]
    fakes = [module for module in model.modules() if isinstance(module, FakeQuantize)]
    switches = [(bool(each.observer_enabled), bool(each.fake_quant_enabled)) for each in fakes]
    model.eval()
    for each in fakes:
        each.disable_observer()
        if quantizes is not None:
            each.enable_fake_quant(quantizes)
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:  # what is around a module comes before it, so each has the last word on itself
            module.train(training)
        for each, (observes, quantized) in zip(fakes, switches, strict=True):
            each.enable_observer(observes)
            each.enable_fake_quant(quantized)


def run_batches(model: nn.Module, batches: Iterable[Any]) -> int:
    """Call the model with every batch; return the number of images, by the length of each batch's first tensor.

    Raises:
        ArgumentError: there is none.
    """
    images, empty = 0, True
    for batch in batches:
        empty = False
        inputs = batch if isinstance(batch, (tuple, list)) else (batch,)
        images += len(inputs[0])
        model(*inputs)
    if empty:
        raise ArgumentError("expected at least one calibration batch, got none")
    return images


def weighted_layers(
    model: nn.Module, batches: Iterable[Any], see: Callable[[str, WeightedQAT, Any], None]
) -> list[tuple[str, WeightedQAT]]:
    """Run batches and show each layer with weights its input; return those that a batch called once.

    Layers that are called several times, or not at all, cannot be changed for one input; those whose parameters are
    another module's as well not for themselves.

    Args:
        model: the prepared model.
        batches: what to run.
        see: takes path, layer and input (a QTensor), before the layer runs.
    """
    layers = [(path, module) for path, module in model.named_modules() if isinstance(module, WeightedQAT)]
    calls: Counter[str] = Counter()

    def hook(path: str, layer: WeightedQAT) -> Callable[..., None]:
        def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            calls[path] += 1
            see(path, layer, inputs[0])

        return before

    handles = [layer.register_forward_pre_hook(hook(path, layer)) for path, layer in layers]
    kept = list(batches)
    try:
        run_batches(model, kept)
    finally:
        for handle in handles:
            handle.remove()
    tied = tied_parameters(model)
    return [(path, layer) for path, layer in layers if calls[path] == len(kept) and not has_any(layer, tied)]


def tied_parameters(model: nn.Module) -> set[int]:
    """Return the ids of the parameters that hang at several modules."""
    owners = Counter(id(p) for module in model.modules() for p in set(module._parameters.values()) if p is not None)
    return {parameter for parameter, count in owners.items() if count > 1}


def has_any(layer: nn.Module, parameters: set[int]) -> bool:
    """Whether a layer has one of the parameters, given by id."""
    return any(id(parameter) in parameters for parameter in layer._parameters.values())

"""Cross-layer equalization: scale channels down in one layer and up in the next, so that ranges are alike.

For layers that follow each other with nothing but a ReLU in between, ``relu(W1 x + b1)`` then ``W2``, any positive s
per channel leaves the float function as it is: ``W1 / s``, ``b1 / s``, ``W2 * s`` (Nagel et al., "Data-free
quantization through weight equalization and bias correction", 2019, section 4.1). There s makes the ranges of both
weights alike. On the BPU weights have a scale per output channel but activations one per tensor, so here s weighs the
range of the activation against that of the weights that read it; where a depthwise layer reads it, whose every channel
has a scale of its own, the activation alone decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..convert import unobserved
from ..errors import ArgumentError
from ..graph_module import ObservedGraphModule
from ..ops.dropout import QATDropout
from ..ops.pooling.adaptive_average import QATAdaptiveAvgPool2d
from ..ops.pooling.pool import QATAvgPool2d, QATMaxPool2d
from ..ops.weighted.layer import WeightedQAT
from .forward import evaluated, has_any, run_batches, tied_parameters

__all__ = ["Equalized", "equalize"]

_BETWEEN = (QATMaxPool2d, QATAvgPool2d, QATAdaptiveAvgPool2d, QATDropout)
"""Operators that may stand between the layers: they commute with positive factors per channel."""
_SWEEPS = 5


@dataclass(frozen=True, kw_only=True)
class Equalized:
    """A pair of layers, and how far the ranges of the channels between them lay apart."""

    first: str
    second: str
    before: float
    """Largest range of a channel over the median."""
    after: float

    def __str__(self) -> str:
        return (
            f"{self.first} -> {self.second}: largest channel {self.before:.1f} times the median, now {self.after:.1f}"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pair:
    first: str
    second: str
    producer: WeightedQAT
    consumer: WeightedQAT


def equalize(model: ObservedGraphModule, batches: Iterable[Any]) -> list[Equalized]:
    """Equalize a prepared model that has not been calibrated; in place. Calibrate it afterwards.

    Args:
        model: returned by ``prepare_qat_fx``.
        batches: calibration data, for the ranges of the channels.

    Returns:
        The pairs of layers; layers with ReLU6 or an addition between them are none, nor are layers that share their
        weights or biases with other modules.

    Raises:
        ArgumentError: the model is calibrated already, or was not prepared by the FX flow.
    """
    if not isinstance(model, ObservedGraphModule):
        raise ArgumentError(f"expected the model that prepare_qat_fx returned, got {type(model).__name__}")
    if not unobserved(model):
        raise ArgumentError("the model is calibrated; equalize a freshly prepared one, its ranges change")
    pairs = list(_pairs(model))
    ranges: dict[str, Tensor] = {}
    handles = [pair.consumer.register_forward_pre_hook(_watch(ranges, pair)) for pair in pairs]
    try:
        with evaluated(model, quantizes=False):
            run_batches(model, batches)
    finally:
        for handle in handles:
            handle.remove()
    before = {pair.second: _spread(ranges[pair.second]) for pair in pairs}
    with torch.no_grad():
        for _ in range(_SWEEPS):
            for pair in pairs:
                ranges[pair.second] = _scale(pair, ranges[pair.second])
    return [
        Equalized(first=pair.first, second=pair.second, before=before[pair.second], after=_spread(ranges[pair.second]))
        for pair in pairs
    ]


def _pairs(model: ObservedGraphModule) -> Iterator[_Pair]:
    modules = dict(model.named_modules(remove_duplicate=False))
    calls, tied = dict[int, int](), tied_parameters(model)
    for node in model.graph.nodes:
        if node.op == "call_module":
            module = id(modules[str(node.target)])
            calls[module] = calls.get(module, 0) + 1
    for node in model.graph.nodes:
        producer = _layer(node, modules)
        user = _reader(node, modules)
        consumer = None if user is None else _layer(user, modules)
        if producer is None or consumer is None or user is None or producer is consumer:
            continue
        homogeneous = not producer.adds and producer.relu != "relu6" and producer.activation_post_process is not None
        once = calls[id(producer)] == calls[id(consumer)] == 1
        own = not has_any(producer, tied) and not has_any(consumer, tied)
        if homogeneous and once and own and producer.bn is consumer.bn is None and _channels(producer, consumer):
            yield _Pair(first=str(node.target), second=str(user.target), producer=producer, consumer=consumer)


def _layer(node: Node, modules: dict[str, Any]) -> WeightedQAT | None:
    module = modules.get(str(node.target)) if node.op == "call_module" else None
    return module if isinstance(module, WeightedQAT) else None


def _reader(node: Node, modules: dict[str, Any]) -> Node | None:
    """Return the one node that convolves a node's result, whatever commutes with scaling in between."""
    users = list(node.users)
    if len(users) != 1:
        return None
    (user,) = users
    module = modules.get(str(user.target)) if user.op == "call_module" else None
    if type(module) in _BETWEEN:
        return _reader(user, modules)
    return user if isinstance(module, WeightedQAT) and user.args[0] is node and node not in user.args[1:] else None


def _channels(producer: WeightedQAT, consumer: WeightedQAT) -> bool:
    """Whether the outputs of one are, one by one, the inputs of the other; not so behind a flattening."""
    return producer.canonical(producer.weight).shape[0] == _by_input(consumer).shape[0]


def _by_input(layer: Any) -> Tensor:
    """Return weights input channel first, [inputs, weights that read each]."""
    weight = layer.canonical(layer.weight)
    groups = getattr(layer, "groups", 1)
    grouped = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    by_input: Tensor = grouped.transpose(1, 2).reshape(groups * weight.shape[1], -1)
    return by_input


def _watch(ranges: dict[str, Tensor], pair: _Pair) -> Any:
    def before(module: Any, inputs: tuple[Any, ...]) -> None:
        x = inputs[0].dequantize()
        axis = x.dim() - 1 if pair.consumer.weight.dim() == 2 else 1
        found = x.movedim(axis, 0).flatten(1).abs().amax(1)
        ranges[pair.second] = torch.maximum(ranges[pair.second], found) if pair.second in ranges else found

    return before


def _scale(pair: _Pair, activation: Tensor) -> Tensor:
    """Scale one pair; return the ranges of the activation afterwards."""
    readers: Any = pair.consumer
    per_channel = getattr(readers, "groups", 1) == activation.numel()
    weights = torch.ones_like(activation) if per_channel else _by_input(readers).abs().amax(1)
    factor = activation / weights if per_channel else (activation / weights).sqrt()
    known = torch.isfinite(factor) & (factor > 0)
    factor = torch.where(known, factor, torch.ones_like(factor))
    factor = factor / factor.log().mean().exp()  # a common factor changes no range relative to another
    producer = pair.producer
    first = producer.canonical(producer.weight)
    producer.weight.copy_(producer.restored(first / factor.reshape(-1, *(1,) * (first.dim() - 1))))
    if producer.bias is not None:
        producer.bias.div_(factor)
    second = readers.canonical(readers.weight)
    groups = getattr(readers, "groups", 1)
    grouped = second.reshape(groups, second.shape[0] // groups, second.shape[1], -1)
    scaled = grouped * factor.reshape(groups, 1, second.shape[1], 1)
    readers.weight.copy_(readers.restored(scaled.reshape(second.shape)))
    return activation / factor


def _spread(ranges: Tensor) -> float:
    median = float(ranges.median())
    return float(ranges.max()) / median if median > 0 else float("inf")

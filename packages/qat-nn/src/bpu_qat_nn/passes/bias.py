"""Bias correction: take out of each layer's bias the mean error that rounding its weights makes.

With weights W, their rounded form W' and inputs x, the mean of the output shifts by E[(W' - W) x]; the bias takes it
back (Nagel et al., "Data-free quantization through weight equalization and bias correction", 2019, section 4.2). The
mean is measured on the quantized inputs, so that every layer answers for its own error only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..ops.weighted.layer import WeightedQAT
from .forward import evaluated, weighted_layers

__all__ = ["CorrectedBias", "add_to_bias", "correct_bias"]


@dataclass(frozen=True, kw_only=True)
class CorrectedBias:
    """What was done to a layer."""

    path: str
    largest: float
    """Largest correction of a channel, in real values."""

    def __str__(self) -> str:
        return f"{self.path}: bias corrected by up to {self.largest:.3g}"


def correct_bias(model: nn.Module, batches: Iterable[Any]) -> list[CorrectedBias]:
    """Correct the biases of a calibrated or trained model; in place.

    Layers whose BatchNorm is kept, that run several times in a pass or share parameters stay as they are.
    ``round_weights`` corrects the biases of the layers that it rounds; afterwards nothing is left to do in them.

    Args:
        model: prepared, by either flow; its weights' scales are known.
        batches: calibration data.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def see(path: str, layer: WeightedQAT, x: Any) -> None:
        if layer.bn is None:
            shift = layer.linear_map(x.dequantize().to(layer.weight.dtype), _rounding_error(layer), None)
            per_channel = shift.movedim(layer.channel_axis(shift.dim()), 0).flatten(1).double()
            sums[path] = sums.get(path, torch.zeros(())) + per_channel.sum(1)
            counts[path] = counts.get(path, 0) + per_channel.shape[1]

    done = []
    with evaluated(model, quantizes=True):
        for path, layer in weighted_layers(model, batches, see):
            if path in sums:
                correction = -(sums[path] / counts[path]).to(layer.weight.dtype)
                add_to_bias(layer, correction)
                done.append(CorrectedBias(path=path, largest=float(correction.abs().max())))
    return done


def _rounding_error(layer: WeightedQAT) -> Tensor:
    """Return rounded weights minus weights, in the layer's own layout."""
    weight = layer.canonical(layer.weight)
    return layer.restored(layer.weight_fake_quant(weight) - weight)


def add_to_bias(layer: WeightedQAT, correction: Tensor) -> None:
    """Add to a layer's bias, which it gets if it has none; [outputs]."""
    if layer.bias is None:
        layer.bias = nn.Parameter(correction, requires_grad=layer.weight.requires_grad)
    else:
        layer.bias.add_(correction)

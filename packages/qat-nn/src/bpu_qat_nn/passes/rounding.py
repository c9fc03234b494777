"""Rounding of weights by what it does to the layer's output, instead of each weight to its nearest step.

Every weight goes to one of its two neighbouring steps such that E[((W' - W) x)^2] is small: the objective of AdaRound
(Nagel et al., "Up or down? Adaptive rounding for post-training quantization", 2020, equation 20). Over inputs x this
is a quadratic form in the second moments E[x x^T], so instead of gradient steps on data a descent over one weight after
the other finds a minimum, starting from the nearest steps; it cannot end up worse on these data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.weighted import WeightedQAT
from ..qtensor import plain
from .forward import evaluated, weighted_layers

__all__ = ["RoundedWeights", "round_weights"]

_DAMPING = 0.01
"""Share of the mean second moment that is added to all, so that few data do not decide about directions unseen."""
_SWEEPS = 10
"""At most so many times over all weights; it settles in three to six."""


@dataclass(frozen=True, kw_only=True)
class RoundedWeights:
    """What was done to a layer."""

    path: str
    changed: float
    """Share of the weights that are not at their nearest step."""
    error: float
    """Mean square error of the output that is left, relative to rounding to nearest."""

    def __str__(self) -> str:
        return f"{self.path}: {self.changed:.1%} of the weights moved, {self.error:.0%} of the error left"


def round_weights(model: nn.Module, batches: Iterable[Any]) -> list[RoundedWeights]:
    """Choose the steps of the weights of a calibrated model and set the weights to them; in place.

    Two-dimensional convolutions and linear layers; the others, those whose BatchNorm is kept, and those that run
    several times in a pass stay as they are. Scales stay as they are: calibrate before, and do not train after.

    Args:
        model: prepared, by either flow; scales are known.
        batches: calibration data; a few hundred positions of each layer suffice.
    """
    moments: dict[str, Tensor] = {}

    def see(path: str, layer: WeightedQAT, x: Any) -> None:
        if layer.bn is None:
            found = _second_moments(layer, plain(x))
            if found is not None:
                moments[path] = moments[path] + found if path in moments else found

    done = []
    with evaluated(model, quantizes=True):
        for path, layer in weighted_layers(model, batches, see):
            if path in moments:
                done.append(_round(path, layer, moments.pop(path)))
    return done


def _second_moments(layer: Any, x: Tensor) -> Tensor | None:
    """Return sums of x x^T over all positions, [groups, taps, taps], for the taps of one output; None if unknown."""
    if isinstance(layer.weight, Tensor) and layer.weight.dim() == 2:
        taps = x.reshape(1, -1, x.shape[-1])
        return taps.transpose(1, 2) @ taps
    if layer.weight.dim() != 4 or not hasattr(layer, "groups") or hasattr(layer, "output_padding"):
        return None
    if isinstance(layer.padding, str):
        return None
    total: Tensor | None = None
    for image in torch.split(x, 1):  # one at a time: the taps of a map are many times its size
        columns = F.unfold(image, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        taps = columns.reshape(layer.groups, -1, columns.shape[-1])
        moments = taps @ taps.transpose(1, 2)
        total = moments if total is None else total + moments
    return total


def _round(path: str, layer: WeightedQAT, moments: Tensor) -> RoundedWeights:
    canonical = layer.canonical(layer.weight)
    fake_quant = layer.weight_fake_quant
    nearest = fake_quant.quantize(canonical)
    scale = fake_quant.scale.detach().double().expand(canonical.shape[0]).reshape(-1, *(1,) * (canonical.dim() - 1))
    groups = moments.shape[0]

    def grouped(values: Tensor) -> Tensor:
        return values.double().reshape(groups, canonical.shape[0] // groups, -1)

    steps = grouped(canonical / scale)
    start = grouped(nearest)
    other = torch.where(start > steps, start - 1, start + 1).clamp(fake_quant.quant_min, fake_quant.quant_max)
    size = grouped(scale.expand(canonical.shape))
    damped = moments.double()
    damped = damped + torch.diag_embed(
        _DAMPING * damped.diagonal(dim1=1, dim2=2).mean(1, keepdim=True).expand(damped.shape[:2])
    )
    chosen, before, after = _descend(start, other, (start - steps) * size, size, damped)
    layer.weight.copy_(layer.restored((chosen * size).reshape(canonical.shape).to(canonical.dtype)))
    changed = float((chosen != start).double().mean())
    return RoundedWeights(path=path, changed=changed, error=after / before if before > 0 else 1.0)


def _descend(start: Tensor, other: Tensor, error: Tensor, size: Tensor, moments: Tensor) -> tuple[Tensor, float, float]:
    """Flip weights between two steps as long as the quadratic form of their errors falls.

    Args:
        start: steps, [groups, outputs, taps].
        other: the other neighbour of each.
        error: real error of each weight.
        size: real size of a step.
        moments: [groups, taps, taps], symmetric.

    Returns:
        The steps chosen, and the form at the start and at the end.
    """
    chosen, other, slope = start.clone(), other.clone(), error @ moments
    first = float((error * slope).sum())
    curvature = moments.diagonal(dim1=1, dim2=2)
    change = 0.0
    for _ in range(_SWEEPS):
        flipped = False
        for tap in range(start.shape[2]):
            move = (other[:, :, tap] - chosen[:, :, tap]) * size[:, :, tap]
            gain = 2 * move * slope[:, :, tap] + move * move * curvature[:, tap, None]
            better = gain < -1e-12 * first / gain.numel()
            if not bool(better.any()):
                continue
            flipped = True
            change += float(gain[better].sum())
            step, back = chosen[:, :, tap], other[:, :, tap]
            chosen[:, :, tap], other[:, :, tap] = torch.where(better, back, step), torch.where(better, step, back)
            slope += torch.where(better, move, 0.0)[:, :, None] * moments[:, None, tap, :]
        if not flipped:
            break
    return chosen, first, first + change

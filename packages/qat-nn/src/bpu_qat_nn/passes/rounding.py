"""Rounding of weights by what it does to the layer's output, instead of each weight to its nearest step.

Every weight goes to one of its two neighbouring steps such that E[((W' - W) x)^2] is small: the objective of AdaRound
(Nagel et al., "Up or down? Adaptive rounding for post-training quantization", 2020, equation 20). Over inputs x this
is a quadratic form in the second moments E[x x^T], so instead of gradient steps on data a descent over one weight after
the other finds a minimum, starting from the nearest steps; it cannot end up worse on these data. The bias takes back
the mean E[(W' - W) x], as in bias.py; what is left to minimise is the form in the covariance of x.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.weighted.layer import WeightedQAT
from .bias import add_to_bias
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
    """Mean square error of the output that is left, relative to rounding to nearest with a corrected bias."""

    def __str__(self) -> str:
        return f"{self.path}: {self.changed:.1%} of the weights moved, {self.error:.0%} of the error left"


def round_weights(model: nn.Module, batches: Iterable[Any]) -> list[RoundedWeights]:
    """Choose the steps of the weights of a calibrated model, set the weights to them and correct the biases; in place.

    Two-dimensional convolutions and linear layers; the others, those whose BatchNorm is kept, and those that run
    several times in a pass or share parameters stay as they are. Scales stay as well: calibrate before, and do not
    train after.

    Args:
        model: prepared, by either flow; scales are known.
        batches: calibration data; a few hundred positions of each layer suffice.
    """
    moments: dict[str, _Moments] = {}

    def see(path: str, layer: WeightedQAT, x: Any) -> None:
        if layer.bn is None:
            found = _moments(layer, x.dequantize())
            if found is not None:
                moments[path] = moments[path].added(found) if path in moments else found

    done = []
    with evaluated(model, quantizes=True):
        for path, layer in weighted_layers(model, batches, see):
            if path in moments:
                done.append(_round(path, layer, moments.pop(path)))
    return done


@dataclass(frozen=True, kw_only=True, eq=False)
class _Moments:
    """Sums over positions, for the taps of one output of each group."""

    count: int
    first: Tensor
    """[groups, taps]."""
    second: Tensor
    """[groups, taps, taps]."""

    @classmethod
    def of(cls, taps: Tensor) -> _Moments:
        """Sum over the positions of taps, [groups, taps, positions]."""
        return cls(count=taps.shape[2], first=taps.sum(2), second=taps @ taps.transpose(1, 2))

    def added(self, other: _Moments) -> _Moments:
        """Return the sums of both."""
        return _Moments(
            count=self.count + other.count, first=self.first + other.first, second=self.second + other.second
        )

    def mean(self) -> Tensor:
        """Return the mean of each tap, float64."""
        return self.first.double() / self.count

    def covariance(self) -> Tensor:
        """Return the covariance of the taps, float64, a little larger in every direction."""
        mean, second = self.mean(), self.second.double() / self.count
        centred = second - mean[:, :, None] * mean[:, None, :]
        share = _DAMPING * second.diagonal(dim1=1, dim2=2).mean(1, keepdim=True)
        return centred + torch.diag_embed(share.expand(second.shape[:2]))


def _moments(layer: Any, x: Tensor) -> _Moments | None:
    """Return the moments of a layer's inputs; None if it is of another kind."""
    if layer.weight.dim() == 2:
        return _Moments.of(x.reshape(1, -1, x.shape[-1]).transpose(1, 2))
    transposed = hasattr(layer, "output_padding")
    if layer.weight.dim() != 4 or transposed or isinstance(layer.padding, str):
        return None
    total: _Moments | None = None
    for image in torch.split(x, 1):  # one at a time: the taps of a map are many times its size
        columns = F.unfold(image, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        found = _Moments.of(columns.reshape(layer.groups, -1, columns.shape[-1]))
        total = found if total is None else total.added(found)
    return total


def _round(path: str, layer: WeightedQAT, moments: _Moments) -> RoundedWeights:
    canonical, fake_quant = layer.canonical(layer.weight), layer.weight_fake_quant
    outputs, groups = canonical.shape[0], moments.first.shape[0]
    scale = fake_quant.scale.detach().double().expand(outputs).reshape(-1, *(1,) * (canonical.dim() - 1))

    def grouped(values: Tensor) -> Tensor:
        return values.double().reshape(groups, outputs // groups, -1)

    exact, start = grouped(canonical / scale), grouped(fake_quant.quantize(canonical))
    size = grouped(scale.expand(canonical.shape))
    other = torch.where(start > exact, start - 1, start + 1).clamp(fake_quant.quant_min, fake_quant.quant_max)
    chosen, before, after = _descend(start, other, (start - exact) * size, size, moments.covariance())
    shift = ((chosen - exact) * size @ moments.mean()[:, :, None]).reshape(-1)
    layer.weight.copy_(layer.restored((chosen * size).reshape(canonical.shape).to(canonical.dtype)))
    add_to_bias(layer, -shift.to(canonical.dtype))
    changed = float((chosen != start).double().mean())
    return RoundedWeights(path=path, changed=changed, error=after / before if before > 0 else 1.0)


def _descend(start: Tensor, other: Tensor, error: Tensor, size: Tensor, moments: Tensor) -> tuple[Tensor, float, float]:
    """Flip weights between two steps as long as the quadratic form of their errors falls.

    Args:
        start: steps, [groups, outputs, taps].
        other: the other neighbour of each.
        error: real error of each weight.
        size: real size of a step.
        moments: covariance of the taps, [groups, taps, taps].

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

"""Batch normalization kept in training (qat_mode WithBN): folded into the weights it follows, and back out of them.

With the running variance v and mean m, per output channel, and ``f = gamma / sqrt(v + eps)``:

    evaluation, conversion:  w' = w * f,  b' = (b - m) * f + beta
    training:                y = bn(conv(x, quantized(w * f)) / f + b), bn taking the batch's statistics

as in Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference" (2018), section 3.2.2. Factors
are computed in float64 and rounded once, so every device has the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["folded", "folded_for_training", "unfolded"]


def _factor(bn: Any) -> Tensor:
    factor = torch.ones_like(bn.running_var).double() / torch.sqrt(bn.running_var.double() + bn.eps)
    if bn.weight is not None:
        factor = factor * bn.weight.double()
    scaled: Tensor = factor.to(bn.running_var.dtype)
    return scaled


def _training_factor(bn: Any) -> Tensor:
    """Return the factor without gradient; 1 where gamma is 0, since nothing can be divided out of zeros."""
    factor = _factor(bn).detach()
    return torch.where(factor == 0.0, torch.ones_like(factor), factor)


def _along_weight(values: Tensor, canonical: Tensor) -> Tensor:
    return values.reshape(-1, *(1,) * (canonical.dim() - 1))


def folded(bn: Any, canonical: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return weight and bias with the running statistics folded in, differentiably.

    Args:
        bn: batch normalization with running statistics.
        canonical: weights, output channel first.
        bias: [O], or None for zeros.
    """
    factor = _factor(bn)
    shift = (-bn.running_mean if bias is None else bias - bn.running_mean) * factor
    return canonical * _along_weight(factor, canonical), shift if bn.bias is None else shift + bn.bias


def folded_for_training(bn: Any, canonical: Tensor) -> Tensor:
    """Return the weights at the size at which they are quantized while the batch's statistics normalize."""
    return canonical * _along_weight(_training_factor(bn), canonical)


def unfolded(bn: Any, y: Tensor, bias: Tensor | None, along_output: Callable[[Tensor], Tensor]) -> Tensor:
    """Undo the factor on what the layer gave, add its bias, and normalize by the batch."""
    y = y / along_output(_training_factor(bn))
    normalized: Tensor = bn(y if bias is None else y + along_output(bias))
    return normalized

"""Copies of parameters, for the layers that a composite is made of; what does not learn goes on not to."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ["copied", "copied_linear"]


def copied(source: Tensor, shape: Sequence[int]) -> nn.Parameter:
    """Return a parameter of the same numbers, which learns if the source does."""
    return nn.Parameter(source.detach().reshape(shape).clone(), requires_grad=source.requires_grad)


def copied_linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Return a linear layer with copies of a weight [outputs, inputs] and a bias [outputs]."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = copied(weight, weight.shape)
    if bias is not None:
        layer.bias = copied(bias, bias.shape)
    return layer

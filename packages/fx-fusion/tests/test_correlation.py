"""Correlation: the rule of the paper, element by element."""

from __future__ import annotations

from itertools import product
from math import ceil
from typing import Any

import pytest
import torch
from torch import Tensor

from bpu_fx_fusion import Correlation, UsageError, trace


def by_elements(layer: Correlation, x: Tensor, y: Tensor) -> Tensor:
    """Compute MXNet's rule, one output element at a time."""
    kernel, reach, pad = layer.kernel_size, layer.max_displacement, layer.pad_size
    batch, channels, high, wide = x.shape
    padded = [torch.zeros(batch, channels, high + 2 * pad, wide + 2 * pad) for _ in range(2)]
    for to, each in zip(padded, (x, y), strict=True):
        to[:, :, pad : pad + high, pad : pad + wide] = each
    border = 2 * (reach + kernel // 2)
    rows, columns = (ceil((n + 2 * pad - border) / layer.stride1) for n in (high, wide))
    radius = reach // layer.stride2
    width = 2 * radius + 1
    out = torch.zeros(batch, width * width, rows, columns)
    for n, channel, i, j in product(range(batch), range(width * width), range(rows), range(columns)):
        top, left = i * layer.stride1 + reach, j * layer.stride1 + reach
        down, right = ((each - radius) * layer.stride2 for each in divmod(channel, width))
        first = padded[0][n, :, top : top + kernel, left : left + kernel]
        second = padded[1][n, :, top + down : top + down + kernel, left + right : left + right + kernel]
        compared = first * second if layer.is_multiply else (first - second).abs()
        out[n, channel, i, j] = compared.sum() / (kernel * kernel * channels)
    return out


@pytest.mark.parametrize(
    "arguments",
    [(), (1, 2, 1, 2, 2), (3, 1, 1, 1, 0), (3, 2, 2, 1, 1), (5, 3, 3, 2, 4), (1, 0), (1, 2, 2, 1, 2, False)],
    ids=str,
)
def test_correlation_is_the_papers(arguments: Any) -> None:
    layer = Correlation(*arguments)
    x, y = torch.randn(2, 3, 9, 11), torch.randn(2, 3, 9, 11)
    torch.testing.assert_close(layer(x, y), by_elements(layer, x, y))


def test_correlation_is_a_leaf() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.compare = Correlation()

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            z: Tensor = self.compare(x, y)
            return z

    assert [node.op for node in trace(Model()).graph.nodes] == ["placeholder", "placeholder", "call_module", "output"]


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="an odd kernel_size"):
        Correlation(kernel_size=2)
    with pytest.raises(UsageError, match="a padded map larger than 10, got"):
        Correlation(max_displacement=5)(torch.ones(1, 1, 9, 9), torch.ones(1, 1, 9, 9))

"""Normalizations called as functions: the module computes the same, or the call stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_fx_fusion import fuse_fx


class Norms(nn.Module):
    """A function of its input and of the module's tensors, of four features."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(4) + 0.5), nn.Parameter(torch.rand(4))
        self.mean: Tensor
        self.variance: Tensor
        self.register_buffer("mean", torch.rand(4))
        self.register_buffer("variance", torch.rand(4) + 0.5)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


FUNCTIONS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "batch_norm": lambda m, x: F.batch_norm(x, m.mean, m.variance),
    "batch_norm affine": lambda m, x: F.batch_norm(x, m.mean, m.variance, m.weight, m.bias),
    "instance_norm": lambda m, x: F.instance_norm(x),
    "instance_norm weight": lambda m, x: F.instance_norm(x, weight=m.weight),
    "instance_norm bias": lambda m, x: F.instance_norm(x, bias=m.bias),
}
SHAPES = ((5, 4), (4, 4, 8), (2, 4, 6, 6), (2, 4, 3, 4, 5))
MODULES = {
    (name, len(shape)): f"{'BatchNorm' if name.startswith('batch') else 'InstanceNorm'}{max(1, len(shape) - 2)}d"
    for name in FUNCTIONS
    for shape in SHAPES
    if len(shape) > 2 or name.startswith("batch")
}


@pytest.mark.parametrize(("name", "axes"), MODULES)
def test_module_of_the_example_s_axes_computes_the_same(name: str, axes: int) -> None:
    model = Norms(FUNCTIONS[name]).eval()
    x = torch.randn(next(shape for shape in SHAPES if len(shape) == axes))
    gm = fuse_fx(model, example_inputs=x)
    torch.testing.assert_close(gm(x), model(x))
    assert MODULES[name, axes] in {type(module).__name__ for module in gm.modules()}


@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
def test_instance_norm_stays_a_function_where_its_axes_are_not_known(shape: tuple[int, ...]) -> None:
    model = Norms(FUNCTIONS["instance_norm weight"])
    gm = fuse_fx(model)
    x = torch.randn(shape)
    assert torch.equal(gm(x), model(x))
    assert "example inputs" in gm.fusion_report.kept_functions[0].reason


class Own(nn.InstanceNorm1d):
    """With a forward of its own, which names the number of axes."""

    def forward(self, input: Tensor) -> Tensor:
        return F.instance_norm(input, eps=self.eps)


def test_instance_norm_of_a_module_has_the_module_s_axes() -> None:
    model = nn.Sequential(Own(4))
    gm = fuse_fx(model)
    x = torch.randn(2, 4, 8)
    torch.testing.assert_close(gm(x), model(x))
    assert nn.InstanceNorm1d in {type(module) for module in gm.children()}

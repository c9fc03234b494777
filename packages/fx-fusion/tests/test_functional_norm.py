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


BEHIND: dict[str, tuple[nn.Module, tuple[int, ...], type[nn.Module]]] = {
    "Linear": (nn.Linear(6, 4), (5, 6), nn.BatchNorm1d),
    "Linear of three axes": (nn.Linear(6, 8), (5, 4, 6), nn.BatchNorm1d),
    "Linear and activation": (nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Dropout(0.1)), (5, 6), nn.BatchNorm1d),
    "Flatten": (nn.Flatten(), (5, 4, 1), nn.BatchNorm1d),
    "Conv1d": (nn.Conv1d(3, 4, 1), (2, 3, 7), nn.BatchNorm1d),
    "Conv2d": (nn.Conv2d(3, 4, 1), (2, 3, 7, 7), nn.BatchNorm2d),
    "Conv3d": (nn.Conv3d(3, 4, 1), (2, 3, 4, 5, 6), nn.BatchNorm3d),
    "not known": (nn.MaxPool2d(2), (2, 4, 6, 6), nn.BatchNorm2d),
}


@pytest.mark.parametrize("name", BEHIND)
def test_batch_norm_has_the_axes_of_the_layer_before_it(name: str) -> None:
    layer, shape, expected = BEHIND[name]
    model = nn.Sequential(layer, Norms(FUNCTIONS["batch_norm affine"])).eval()
    gm, x = fuse_fx(model, absorb_batch_norm=False), torch.randn(shape)
    torch.testing.assert_close(gm(x), model(x))
    assert expected in {type(module) for module in gm.modules()}


def test_batch_norm_behind_a_flatten_is_of_vectors() -> None:
    class Flattened(Norms):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(torch.flatten(x, 1))

    model, x = Flattened(FUNCTIONS["batch_norm"]).eval(), torch.randn(3, 4, 1, 1)
    torch.testing.assert_close(fuse_fx(model)(x), model(x))

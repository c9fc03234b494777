"""F.conv2d and its like on a module's parameters become layers that share them, and fuse as layers do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_fx_fusion import ConvReLU2d, fuse_fx

CASES: dict[str, tuple[Callable[..., Tensor], nn.Module, dict[str, Any], tuple[int, ...]]] = {
    "linear": (F.linear, nn.Linear(6, 4), {}, (2, 6)),
    "conv2d": (F.conv2d, nn.Conv2d(4, 6, 3), {"stride": 2, "padding": (1, 0)}, (2, 4, 8, 8)),
    "conv2d_grouped": (
        F.conv2d,
        nn.Conv2d(4, 6, 3, groups=2, bias=False),
        {"groups": 2, "padding": "same"},
        (2, 4, 8, 8),
    ),
    "conv3d": (F.conv3d, nn.Conv3d(2, 3, 2), {"dilation": 2}, (1, 2, 5, 5, 5)),
    "conv_transpose2d": (
        F.conv_transpose2d,
        nn.ConvTranspose2d(4, 6, 3, groups=2),
        {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2},
        (2, 4, 5, 5),
    ),
}


class Functional(nn.Module):
    def __init__(self, function: Callable[..., Tensor], layer: nn.Module, options: dict[str, Any]) -> None:
        super().__init__()
        self.weight = layer.weight
        self.bias = layer.bias
        self.function, self.options = function, options

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.weight, self.bias, **self.options)


@pytest.mark.parametrize("case", CASES)
def test_function_on_parameters_becomes_the_layer_and_shares_them(case: str) -> None:
    function, layer, options, shape = CASES[case]
    model = Functional(function, layer, options)
    gm = fuse_fx(model)
    made: Any = gm.get_submodule(f"_generated_{case.split('_grouped')[0]}_0")
    assert type(made) is type(layer)
    assert made.weight is model.weight
    x = torch.randn(shape)
    assert torch.equal(gm(x), model(x))


class StaticPadding(nn.Conv2d):
    """A convolution with a forward of its own, as model zoos have them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, stride=2, bias=False)
        self.static_padding = nn.ZeroPad2d((0, 1, 0, 1))

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(self.static_padding(input), self.weight, self.bias, self.stride, self.padding)


def test_convolution_with_its_own_forward_fuses_with_what_follows() -> None:
    model = nn.Sequential(StaticPadding(3, 8), nn.BatchNorm2d(8), nn.ReLU()).eval()
    gm = fuse_fx(model)
    assert (
        type(
            gm.get_submodule(
                "_0_generated_conv2d_0" if hasattr(gm, "_0_generated_conv2d_0") else "0_generated_conv2d_0"
            )
        )
        is ConvReLU2d
    )
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(gm(x), model(x))


def test_function_on_a_weight_computed_from_parameters_becomes_a_layer_with_the_result() -> None:
    class Computed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 6))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.weight * 2)

    model = Computed()
    gm = fuse_fx(model)
    assert [type(module) for module in gm.children()] == [nn.Linear]
    x = torch.randn(3, 6)
    assert torch.equal(gm(x), model(x))


def test_function_on_a_weight_computed_from_the_input_stays() -> None:
    class Computed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, x + 1)

    gm = fuse_fx(Computed())
    assert "no parameter of a module" in str(gm.fusion_report)

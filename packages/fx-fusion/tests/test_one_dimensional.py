"""Layers along one axis become layers in two dimensions that compute the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bpu_fx_fusion import one_dimensional_to_two, trace, type_as_written

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2),
    "conv same": lambda: nn.Conv1d(4, 6, 3, padding="same", bias=False),
    "max pool": lambda: nn.MaxPool1d(3, 2, 1, ceil_mode=True),
    "average pool": lambda: nn.AvgPool1d(3, 2, 1, count_include_pad=False),
    "adaptive average pool": lambda: nn.AdaptiveAvgPool1d(3),
}


class Net(nn.Module):
    def __init__(self, layer: nn.Module, by_keyword: bool) -> None:
        super().__init__()
        self.layer, self.by_keyword = layer, by_keyword

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(input=x) if self.by_keyword else self.layer(x)
        return y


@pytest.mark.parametrize("by_keyword", [False, True], ids=["position", "keyword"])
@pytest.mark.parametrize("name", LAYERS)
def test_layer_in_two_dimensions_computes_the_same(name: str, by_keyword: bool) -> None:
    model = Net(LAYERS[name](), by_keyword)
    gm = trace(model)
    assert one_dimensional_to_two(gm)
    x = torch.randn(2, 4, 11)
    torch.testing.assert_close(gm(x), model(x))
    assert type_as_written(gm.layer) is type(model.layer)
    assert type(gm.layer).__name__ == type(model.layer).__name__.replace("1d", "2d")


def test_what_was_set_on_the_layer_goes_along() -> None:
    model: Any = Net(nn.Conv1d(4, 6, 3), False).eval()
    model.layer.requires_grad_(False)
    model.layer.qconfig = "of the user"
    gm: Any = trace(model)
    one_dimensional_to_two(gm)
    assert not gm.layer.weight.requires_grad
    assert gm.layer.qconfig == "of the user"
    assert not gm.layer.training


def test_other_modules_are_what_they_were_written_as() -> None:
    assert type_as_written(nn.Conv2d(1, 1, 1)) is nn.Conv2d

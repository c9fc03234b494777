"""Asserts about the number of axes, as timm's BatchNormAct2d has one, do not keep a BatchNorm from being folded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_fx_fusion import fuse_fx


class BatchNormAct(nn.BatchNorm2d):
    """BatchNorm with an assert in front and an activation behind it."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        torch._assert(x.ndim == 4, f"expected 4D input (got {x.ndim}D input)")  # type: ignore[no-untyped-call]
        normal = F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum or 0.1,
            self.eps,
        )
        return self.act(normal)  # type: ignore[no-any-return]


@pytest.mark.parametrize("example_inputs", [None, torch.zeros(1, 3, 8, 8)], ids=["plain", "with_examples"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluating"])
def test_batch_norm_behind_an_assert_is_folded(example_inputs: Any, training: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), BatchNormAct(4)).train(training)
    fused = fuse_fx(model, example_inputs=example_inputs)

    (entry,) = fused.fusion_report.fused
    assert entry.pattern == "Conv2d + BatchNorm2d + ReLU"
    assert [node.op for node in fused.graph.nodes] == ["placeholder", "call_module", "output"]
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(fused.eval()(x), model.eval()(x))


class Asserts(nn.Module):
    """An assert about a layer's output."""

    def __init__(self, layer: nn.Module, axes: int) -> None:
        super().__init__()
        self.layer, self.axes = layer, axes

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        torch._assert(y.dim() == self.axes, "axes")  # type: ignore[no-untyped-call]
        return y


def asserts_left(model: nn.Module) -> int:
    return sum(node.target is torch._assert for node in fuse_fx(model).graph.nodes)


def test_assert_that_does_not_hold_stays_and_raises() -> None:
    model = Asserts(nn.Conv2d(3, 4, 1), 3)

    assert asserts_left(model) == 1
    with pytest.raises(AssertionError, match="axes"):
        fuse_fx(model)(torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize(("layer", "left"), [(nn.Conv2d(3, 4, 1), 0), (nn.Softmax(1), 1)], ids=["settled", "unknown"])
def test_only_what_the_layer_before_settles_is_left_out(layer: nn.Module, left: int) -> None:
    assert asserts_left(Asserts(layer, 4)) == left

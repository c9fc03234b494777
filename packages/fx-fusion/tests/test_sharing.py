"""Layers called several times: fused once if every call is alike, otherwise left alone with a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_fx_fusion import FloatFunctional, fuse_fx

Randomize = Callable[[nn.Module], nn.Module]


class Shared(nn.Module):
    """Modules to be called in several ways, given as a function of the model and two inputs."""

    def __init__(self, run: Callable[[Any, Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)
        self.conv_b = nn.Conv2d(2, 2, 1)
        self.bn = nn.BatchNorm2d(2)
        self.bn_b = nn.BatchNorm2d(2)
        self.relu = nn.ReLU()
        self.relu_b = nn.ReLU()
        self.add = FloatFunctional()
        self.run = run

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.run(self, x, y)


FUSED: dict[str, tuple[Callable[[Any, Tensor, Tensor], Any], dict[str, tuple[str, ...]]]] = {
    "same modules": (
        lambda m, x, y: (m.relu(m.bn(m.conv(x))), m.relu(m.bn(m.conv(y)))),
        {"conv": ("conv", "bn", "relu")},
    ),
    "same batch norm": (lambda m, x, y: (m.bn(m.conv(x)), m.bn(m.conv(y))), {"conv": ("conv", "bn")}),
    "in a chain": (lambda m, x, y: m.relu(m.conv(m.relu(m.conv(x)))), {"conv": ("conv", "relu")}),
    "relu without state": (
        lambda m, x, y: (m.relu(m.conv(x)), m.relu_b(m.conv(y))),
        {"conv": ("conv", "relu", "relu_b")},
    ),
    "relu as function": (
        lambda m, x, y: (F.relu(m.conv(x)), F.relu(m.conv(y))),
        {"conv": ("conv", "_generated_relu_0", "_generated_relu_1")},
    ),
    "batch norm of two convs": (
        lambda m, x, y: (m.bn(m.conv(x)), m.relu(m.bn(m.conv_b(y)))),
        {"conv": ("conv", "bn"), "conv_b": ("conv_b", "bn", "relu")},
    ),
    "relu still used elsewhere": (
        lambda m, x, y: m.relu(m.relu(m.conv(x)) * y),
        {"conv": ("conv", "relu")},
    ),
}


@pytest.mark.parametrize("case", FUSED)
def test_calls_that_are_alike_fuse_once(case: str, randomize: Randomize) -> None:
    run, expected = FUSED[case]
    model = randomize(Shared(run)).eval()

    fused = fuse_fx(model)

    assert fused.fused_modules == expected
    assert fused.fusion_report.not_fused == ()
    x, y = torch.randn(1, 2, 3, 3), torch.randn(1, 2, 3, 3)
    torch.testing.assert_close(fused(x, y), model(x, y))


def test_a_member_that_is_still_called_stays() -> None:
    fused = fuse_fx(Shared(FUSED["relu still used elsewhere"][0]))

    assert isinstance(fused.get_submodule("relu"), nn.ReLU)


REFUSED: dict[str, tuple[Callable[[Any, Tensor, Tensor], Any], str]] = {
    "batch norm per level": (
        lambda m, x, y: (m.bn(m.conv(x)), m.bn_b(m.conv(y))),
        "conv is called 2 times, followed by different modules: conv + bn; conv + bn_b",
    ),
    "one call without relu": (
        lambda m, x, y: (m.relu(m.conv(x)), m.conv(y)),
        "conv is called 2 times, only 1 of them as Conv2d + ReLU",
    ),
    "one call with batch norm": (
        lambda m, x, y: (m.relu(m.bn(m.conv(x))), m.bn(m.conv(y))),
        "conv is called 2 times, in different ways: Conv2d + BatchNorm2d + ReLU; Conv2d + BatchNorm2d",
    ),
    "residual": (
        lambda m, x, y: (m.conv(x) + y, m.conv(y) + x),
        "conv is called 2 times and its output is added to another tensor",
    ),
    "convolution added to itself again": (
        lambda m, x, y: m.conv(x) + m.conv(y),
        "conv is called 2 times and its output is added to another tensor",
    ),
    "shared functional": (
        lambda m, x, y: m.add.add(m.conv(x), y) * m.add.add(m.conv_b(x), y),
        "add is called 2 times, use one FloatFunctional per addition",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_calls_that_differ_are_left_alone_with_the_reason(case: str, randomize: Randomize) -> None:
    run, reason = REFUSED[case]
    model = randomize(Shared(run)).eval()

    fused = fuse_fx(model)

    assert fused.fused_modules == {}
    assert reason in [n.reason for n in fused.fusion_report.not_fused]
    x, y = torch.randn(1, 2, 3, 3), torch.randn(1, 2, 3, 3)
    torch.testing.assert_close(fused(x, y), model(x, y), rtol=0, atol=0)


def test_a_batch_norm_of_two_convolutions_can_be_folded_but_not_kept(randomize: Randomize) -> None:
    model = randomize(Shared(FUSED["batch norm of two convs"][0])).eval()

    fused = fuse_fx(model, absorb_batch_norm=False)

    assert fused.fused_modules == {}
    assert {n.reason for n in fused.fusion_report.not_fused} == {
        "bn is called after other layers too and cannot become part of one of them"
    }
    x = torch.randn(1, 2, 3, 3)
    torch.testing.assert_close(fused(x, x), model(x, x), rtol=0, atol=0)


def test_one_object_under_two_names_is_replaced_under_both(randomize: Randomize) -> None:
    class TwoNames(Shared):
        def __init__(self, run: Callable[[Any, Tensor, Tensor], Any]) -> None:
            super().__init__(run)
            self.conv_b = self.conv

    model = randomize(TwoNames(lambda m, x, y: (m.bn(m.conv(x)), m.bn(m.conv_b(y))))).eval()

    fused = fuse_fx(model)

    assert fused.conv is fused.conv_b is not model.conv
    x = torch.randn(1, 2, 3, 3)
    torch.testing.assert_close(fused(x, x), model(x, x))

"""Operations that overwrite their input keep their meaning when they become modules, and when others move."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_fx_fusion import fuse_fx


class Ignored(nn.Module):
    """Each overwrites a tensor and goes on with the tensor, not with the result of the call."""

    def __init__(self, overwrite: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.overwrite = overwrite
        self.conv = nn.Conv2d(2, 2, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        self.overwrite(y)
        return y * 2


class IgnoredModule(Ignored):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        self.relu(y)
        return y * 2


@pytest.mark.parametrize(
    "model",
    [
        Ignored(lambda y: y.add_(3)),
        Ignored(lambda y: y.mul_(y)),
        Ignored(lambda y: y.relu_()),
        Ignored(lambda y: F.relu(y, inplace=True)),
        Ignored(lambda y: y.clamp_(-0.1, 0.1)),
        Ignored(lambda y: y.sigmoid_()),
        Ignored(lambda y: y.zero_()),
        Ignored(lambda y: y[:, 0].add_(5)),
        Ignored(lambda y: F.relu(y.view(-1), inplace=True)),
        IgnoredModule(lambda y: None),
    ],
    ids=["add_", "mul_", "relu_", "F.relu", "clamp_", "sigmoid_", "zero_", "view", "view_relu", "nn.ReLU"],
)
def test_users_of_an_overwritten_tensor_see_the_result(model: nn.Module) -> None:
    model.eval()
    x = torch.randn(1, 2, 3, 3)

    with torch.no_grad():
        torch.testing.assert_close(fuse_fx(model)(x), model(x))


def test_an_inplace_relu_fuses_even_if_its_result_is_ignored() -> None:
    fused = fuse_fx(IgnoredModule(lambda y: None))

    assert fused.fused_modules == {"conv": ("conv", "relu")}


class PreActivation(nn.Module):
    """The convolution's input is overwritten before the addition, where the fused module would run."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = x * 1
        y: Tensor = self.conv(x)
        z: Tensor = self.relu(x)
        return y + z


def test_a_convolution_is_not_moved_behind_what_overwrites_its_input() -> None:
    model = PreActivation().eval()
    fused = fuse_fx(model)
    x = torch.randn(1, 2, 3, 3)

    with torch.no_grad():
        torch.testing.assert_close(fused(x), model(x))
    assert [n.reason for n in fused.fusion_report.not_fused] == [
        "relu overwrites the input of conv before the addition"
    ]

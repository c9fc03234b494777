"""Nets for testing that give one answer for an image, a clip or a vector, and the parts that they are made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_qat_nn.ops.stubs import DeQuantStub, QuantStub

__all__ = ["MLP", "MobileNet", "ResNet", "SqueezeExcite", "Stubs", "VideoNet", "conv_bn"]


class Stubs(nn.Module):
    """The borders of a net with one input and one output."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return convolution and batch normalization."""
    return [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)]


class BasicBlock(nn.Module):
    """ResNet's block of two convolutions."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv_bn(inputs, outputs, 3, stride), nn.ReLU(), *conv_bn(outputs, outputs))
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(*conv_bn(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """``relu(body(x) + shortcut(x))``."""
        return F.relu(self.body(x) + self.shortcut(x))


class ResNet(Stubs):
    """As ResNet-18, narrower."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, 8, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        widths = [(8, 8, 1), (8, 8, 1), (8, 16, 2), (16, 16, 1), (16, 32, 2), (32, 32, 1)]
        self.blocks = nn.Sequential(*(BasicBlock(*width) for width in widths))
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        x = self.pool(self.blocks(self.stem(self.quant(x))))
        y: Tensor = self.dequant(self.fc(torch.flatten(x, 1)))
        return y


class InvertedResidual(nn.Module):
    """MobileNetV2's block."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            *conv_bn(inputs, hidden, 1), nn.ReLU6(), *conv_bn(hidden, hidden, 3, stride, hidden), nn.ReLU6(),
            *conv_bn(hidden, outputs, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Add the input where shapes allow."""
        y: Tensor = self.body(x)
        return x + y if self.adds else y


class MobileNet(Stubs):
    """As MobileNetV2, narrower."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, 8, 3, 2), nn.ReLU6())
        widths = [(8, 8, 1, 2), (8, 12, 2, 3), (12, 12, 1, 3), (12, 16, 2, 3), (16, 16, 1, 3)]
        self.blocks = nn.Sequential(*(InvertedResidual(*width) for width in widths))
        self.head = nn.Sequential(*conv_bn(16, 48, 1), nn.ReLU6())
        self.drop, self.fc = nn.Dropout(0.2), nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        x = self.head(self.blocks(self.stem(self.quant(x)))).mean([2, 3])
        y: Tensor = self.dequant(self.fc(self.drop(x)))
        return y


class SqueezeExcite(Stubs):
    """Channel attention with sigmoid and broadcast product, SiLU and hard-swish."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, 16, 3, 2), nn.SiLU())
        self.reduce, self.expand = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.tail = nn.Sequential(*conv_bn(16, 24, 3, 2), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        x = self.stem(self.quant(x))
        gate = torch.sigmoid(self.expand(F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)))))
        y: Tensor = self.dequant(self.fc(self.tail(x * gate)))
        return y


class MLP(Stubs):
    """Linear layers with BatchNorm1d."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 32), nn.BatchNorm1d(32),
            nn.ReLU6(), nn.Linear(32, 5),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        y: Tensor = self.dequant(self.body(self.quant(x)))
        return y


class VideoNet(Stubs):
    """Three-dimensional convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv3d(3, 8, 3, 1, 1), nn.BatchNorm3d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv3d(8, 8, 3, 1, 1), nn.BatchNorm3d(8))
        self.third = nn.Conv3d(8, 4, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of a clip."""
        x = self.first(self.quant(x))
        y: Tensor = self.dequant(self.third(F.relu(self.second(x) + x)))
        return y

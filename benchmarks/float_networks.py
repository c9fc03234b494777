"""ResNet-18 and MobileNetV2 in torch's modules, of any width and depth, with random weights."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

__all__ = ["NETWORKS", "Network", "mobilenet_v2", "resnet18"]

Network = Callable[[float, int], nn.Module]
"""Makes a network: width as a factor, and depth as a factor on the number of blocks."""


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class _Basic(nn.Module):
    """Two 3 x 3 convolutions and a residual, projected where shapes differ."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_conv_bn(inputs, outputs, 3, stride), nn.ReLU(), *_conv_bn(outputs, outputs, 3))
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(*_conv_bn(inputs, outputs, 1, stride))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Add and rectify."""
        y: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return y


class _Inverted(nn.Module):
    """An inverted residual: widened, convolved by channel, narrowed."""

    def __init__(self, inputs: int, outputs: int, stride: int, factor: int) -> None:
        super().__init__()
        hidden = inputs * factor
        widened = [*_conv_bn(inputs, hidden, 1), nn.ReLU6()] if factor > 1 else []
        self.body = nn.Sequential(
            *widened, *_conv_bn(hidden, hidden, 3, stride, hidden), nn.ReLU6(), *_conv_bn(hidden, outputs, 1)
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Add where shapes are equal."""
        y: Tensor = self.body(x)
        return x + y if self.adds else y


def _wide(channels: int, width: float) -> int:
    return max(8, int(channels * width + 4) // 8 * 8)


def resnet18(width: float = 1.0, depth: int = 1) -> nn.Module:
    """K. He et al., "Deep residual learning for image recognition", CVPR 2016, table 1."""
    channels = _wide(64, width)
    layers: list[nn.Module] = [*_conv_bn(3, channels, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    for stage in range(4):
        outputs = _wide(64 * 2**stage, width)
        for block in range(2 * depth):
            layers.append(_Basic(channels, outputs, 2 if stage and not block else 1))
            channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


_MOBILENET = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Widening factor, channels, blocks and stride of every stage."""


def mobilenet_v2(width: float = 1.0, depth: int = 1) -> nn.Module:
    """M. Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", CVPR 2018, table 2."""
    channels = _wide(32, width)
    layers: list[nn.Module] = [*_conv_bn(3, channels, 3, 2), nn.ReLU6()]
    for factor, outputs, blocks, stride in _MOBILENET:
        for block in range(blocks * depth):
            layers.append(_Inverted(channels, _wide(outputs, width), 1 if block else stride, factor))
            channels = _wide(outputs, width)
    last = max(1280, _wide(1280, width))
    head = [*_conv_bn(channels, last, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2)]
    return nn.Sequential(*layers, *head, nn.Linear(last, 1000))


NETWORKS: dict[str, Network] = {"resnet18": resnet18, "mobilenet_v2": mobilenet_v2}

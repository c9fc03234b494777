"""ResNet-50 and MobileNetV2 as lists of layers with random weights, from which every competitor builds its model."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

__all__ = ["NETWORKS", "Conv", "Layer", "MaxPool", "Network", "mobilenet_v2", "resnet50"]


@dataclass(frozen=True, kw_only=True)
class Conv:
    """A convolution (or, over one position, a linear layer) with what is fused to it."""

    name: str
    read: str
    """Name of the layer whose output it reads."""
    weight: np.ndarray
    """int8, OHWI; bell-shaped, the largest of a channel at 127, as training leaves them."""
    stride: int
    pad: int
    groups: int
    relu: bool
    add: str | None = None
    """Name of the layer whose output is added before the ReLU."""


@dataclass(frozen=True, kw_only=True)
class MaxPool:
    """A window of 3 at stride 2 with padding 1."""

    name: str
    read: str


@dataclass(frozen=True, kw_only=True)
class GlobalAverage:
    """The average over height and width."""

    name: str
    read: str


Layer = Conv | MaxPool | GlobalAverage


@dataclass(kw_only=True)
class Network:
    """Layers in order; the first reads "x"."""

    name: str
    layers: list[Layer] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    @property
    def last(self) -> str:
        """Name of the last layer."""
        return self.layers[-1].name if self.layers else "x"

    def conv(
        self,
        read: str,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        relu: bool = True,
        add: str | None = None,
    ) -> str:
        """Append a convolution and return its name."""
        drawn = self.rng.normal(size=(outputs, kernel, kernel, inputs // groups))
        largest = np.abs(drawn).max(axis=(1, 2, 3), keepdims=True)
        weight = np.rint(drawn * 127 / largest).astype(np.int8)
        name = f"conv{len(self.layers)}"
        self.layers.append(
            Conv(name=name, read=read, weight=weight, stride=stride, pad=kernel // 2, groups=groups, relu=relu, add=add)
        )
        return name


def resnet50() -> Network:
    """ResNet-50 (arXiv 1512.03385) with the stride in the 3x3 convolutions, as torchvision has it."""
    net = Network(name="ResNet-50")
    net.conv("x", 3, 64, 7, stride=2)
    net.layers.append(MaxPool(name="pool", read=net.last))
    x, inputs = "pool", 64
    for width, blocks, first_stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            around = x if block else net.conv(x, inputs, 4 * width, stride=stride, relu=False)
            inner = net.conv(net.conv(x, inputs, width), width, width, 3, stride=stride)
            x, inputs = net.conv(inner, width, 4 * width, add=around), 4 * width
    return _classify(net, x, inputs)


def mobilenet_v2() -> Network:
    """MobileNetV2 (arXiv 1801.04381), width 1; its ReLU6 is a ReLU once the scale puts 6 at 127."""
    net = Network(name="MobileNetV2")
    x, inputs = net.conv("x", 3, 32, 3, stride=2), 32
    for expansion, outputs, blocks, first_stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for block in range(blocks):
            stride, width = first_stride if block == 0 else 1, expansion * inputs
            inner = net.conv(x, inputs, width) if expansion > 1 else x
            inner = net.conv(inner, width, width, 3, stride=stride, groups=width)
            skip = x if stride == 1 and inputs == outputs else None
            x, inputs = net.conv(inner, width, outputs, relu=False, add=skip), outputs
    return _classify(net, net.conv(x, inputs, 1280), 1280)


def _classify(net: Network, x: str, inputs: int) -> Network:
    net.layers.append(GlobalAverage(name="average", read=x))
    net.conv("average", inputs, 1000, relu=False)
    return net


NETWORKS = {"resnet50": resnet50, "mobilenet_v2": mobilenet_v2}
"""By the name that the command line takes."""

"""NETS: small nets of the shapes that people deploy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_kernels.march import March
from bpu_qat_nn.ops.stubs import DeQuantStub, QuantStub

__all__ = ["NETS", "NetCase"]


class _Stubs(nn.Module):
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


class ResNet(_Stubs):
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


class MobileNet(_Stubs):
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


class UNet(_Stubs):
    """Down, up by transposed convolution and by resizing, with concatenated skips."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Sequential(*conv_bn(i, o), nn.ReLU()) for i, o in ((3, 8), (8, 16), (16, 24)))
        self.up = nn.ConvTranspose2d(24, 16, 2, 2)
        self.merge = nn.ModuleList(nn.Sequential(*conv_bn(i, o), nn.ReLU()) for i, o in ((32, 16), (24, 8)))
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Segment."""
        a = self.down[0](self.quant(x))
        b = self.down[1](F.max_pool2d(a, 2))
        c = self.down[2](F.max_pool2d(b, 2))
        b = self.merge[0](torch.cat([self.up(c), b], 1))
        large = F.interpolate(b, scale_factor=2, mode="bilinear", align_corners=False)
        y: Tensor = self.dequant(self.out(self.merge[1](torch.cat([large, a], 1))))
        return y


class FPN(_Stubs):
    """A pyramid with nearest upsampling and one head for all levels."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(*conv_bn(i, o, 3, 2), nn.ReLU()) for i, o in ((3, 8), (8, 16), (16, 24))
        )
        self.lateral = nn.ModuleList(nn.Conv2d(width, 12, 1) for width in (8, 16, 24))
        self.head = nn.Sequential(*conv_bn(12, 12), nn.ReLU())
        self.scores, self.boxes = nn.Conv2d(12, 6, 1), nn.Conv2d(12, 4, 1)
        self.outs = nn.ModuleList(DeQuantStub() for _ in range(6))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return scores and boxes of three levels."""
        features, value = [], self.quant(x)
        for stage in self.stages:
            value = stage(value)
            features.append(value)
        merged = [self.lateral[2](features[2])]
        for level in (1, 0):
            merged.append(self.lateral[level](features[level]) + F.interpolate(merged[-1], scale_factor=2))
        outputs = []
        for index, level_map in enumerate(merged):
            shared = self.head(level_map)
            outputs += [self.outs[2 * index](self.scores(shared)), self.outs[2 * index + 1](self.boxes(shared))]
        return outputs


class SqueezeExcite(_Stubs):
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


class MLP(_Stubs):
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


class VideoNet(_Stubs):
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


@dataclass(frozen=True, kw_only=True)
class NetCase:
    """A net with its input and the marches that take it."""

    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...] = ((2, 3, 32, 32),)
    marches: tuple[March, ...] = tuple(March)
    high_precision: tuple[str, ...] = ()
    """Layers whose output keeps 32 bits."""

    def model(self, seed: int = 0) -> nn.Module:
        """Return the net after a few batches have passed, so that its statistics are not the initial ones."""
        torch.manual_seed(seed)
        net = self.make().train()
        with torch.no_grad():
            for _ in range(3):
                net(*(torch.randn(shape) for shape in self.shapes))
        return net.eval()


BAYES = (March.BAYES, March.BAYES_E)

NETS: dict[str, NetCase] = {
    "resnet": NetCase(make=ResNet, high_precision=("fc",)),
    "mobilenet": NetCase(make=MobileNet, high_precision=("fc",)),
    "unet": NetCase(make=UNet, high_precision=("out",)),
    "fpn": NetCase(make=FPN, high_precision=("scores", "boxes")),
    "squeeze_excite": NetCase(make=SqueezeExcite),
    "mlp": NetCase(make=MLP, shapes=((8, 20),)),
    "conv3d": NetCase(make=VideoNet, shapes=((1, 3, 6, 12, 12),), marches=BAYES),
}
"""Name -> net."""

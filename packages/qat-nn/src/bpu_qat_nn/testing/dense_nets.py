"""Nets for testing that answer for every place of an image: segmentation and detection."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_qat_nn.ops.stubs import DeQuantStub, QuantStub

from .classifiers import Stubs, conv_bn

__all__ = ["FPN", "YOLO", "UNet"]


class UNet(Stubs):
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


class FPN(Stubs):
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


class C2f(nn.Module):
    """YOLOv8's block: the parts of a convolution grow into a list that is joined in the end."""

    def __init__(self, inputs: int, outputs: int, *, shortcut: bool) -> None:
        super().__init__()
        half = outputs // 2
        self.first = nn.Sequential(*conv_bn(inputs, outputs, 1), nn.SiLU())
        self.inner = nn.Sequential(*conv_bn(half, half), nn.SiLU(), *conv_bn(half, half), nn.SiLU())
        self.last = nn.Sequential(*conv_bn(3 * half, outputs, 1), nn.SiLU())
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Join both halves and what the second one becomes."""
        parts = list(self.first(x).chunk(2, 1))
        inner = self.inner(parts[-1])
        parts.append(parts[-1] + inner if self.shortcut else inner)
        y: Tensor = self.last(torch.cat(parts, 1))
        return y


class SPPF(nn.Module):
    """YOLO's pyramid of one max pooling in a row."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(*conv_bn(width, width // 2, 1), nn.SiLU())
        self.last = nn.Sequential(*conv_bn(2 * width, width, 1), nn.SiLU())
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Join the map with three poolings of it."""
        maps = [self.first(x)]
        maps.extend(self.pool(maps[-1]) for _ in range(3))
        y: Tensor = self.last(torch.cat(maps, 1))
        return y


class YOLO(nn.Module):
    """As YOLOv8, narrower: two levels, paths up and down, a head for boxes and one for classes."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), nn.ModuleList(DeQuantStub() for _ in range(2))
        self.stem = nn.Sequential(*conv_bn(3, 8, 3, 2), nn.SiLU(), *conv_bn(8, 16, 3, 2), nn.SiLU())
        self.fine = C2f(16, 16, shortcut=True)
        self.coarse = nn.Sequential(*conv_bn(16, 24, 3, 2), nn.SiLU(), C2f(24, 24, shortcut=True), SPPF(24))
        self.up, self.to_fine = nn.Upsample(scale_factor=2, mode="nearest"), C2f(40, 16, shortcut=False)
        self.down = nn.Sequential(*conv_bn(16, 16, 3, 2), nn.SiLU())
        self.to_coarse = C2f(40, 24, shortcut=False)
        self.boxes = nn.ModuleList(nn.Conv2d(width, 8, 1) for width in (16, 24))
        self.classes = nn.ModuleList(nn.Conv2d(width, 5, 1) for width in (16, 24))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return boxes and classes of both levels, joined."""
        fine = self.fine(self.stem(self.quant(x)))
        coarse = self.coarse(fine)
        fine = self.to_fine(torch.cat([self.up(coarse), fine], 1))
        coarse = self.to_coarse(torch.cat([self.down(fine), coarse], 1))
        heads = zip(self.dequant, self.boxes, self.classes, (fine, coarse), strict=True)
        return [dequant(torch.cat([boxes(x), classes(x)], 1)) for dequant, boxes, classes, x in heads]

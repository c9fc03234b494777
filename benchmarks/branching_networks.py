"""A U-Net, a feature pyramid, a DenseNet and a vision transformer: small networks that join, pad, resize and attend."""

from __future__ import annotations

import itertools

import torch
from float_networks import Network
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["BRANCHING"]


def _layer(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def _wide(channels: int, width: float) -> int:
    return max(8, int(channels * width) // 8 * 8)


class _UNet(nn.Module):
    """O. Ronneberger et al., "U-Net", MICCAI 2015: every level is upsampled and joined with what came before it."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        sizes = [channels * 2**level for level in range(4)]
        self.first = _layer(3, channels)
        self.down = nn.ModuleList(self._level(a, b, depth) for a, b in itertools.pairwise(sizes))
        self.up = nn.ModuleList(self._level(a + b, a, depth) for a, b in itertools.pairwise(sizes))
        self.head = nn.Conv2d(channels, 4, 1)

    @staticmethod
    def _level(inputs: int, outputs: int, depth: int) -> nn.Sequential:
        return nn.Sequential(_layer(inputs, outputs), *(_layer(outputs, outputs) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        """Give four maps of the input's size."""
        levels = [self.first(x)]
        for down in self.down:
            levels.append(down(F.max_pool2d(levels[-1], 2)))
        y = levels.pop()
        for up, level in zip(reversed(self.up), reversed(levels), strict=True):
            y = up(torch.cat([level, F.interpolate(y, scale_factor=2, mode="nearest")], 1))
        made: Tensor = self.head(y)
        return made


class _Pyramid(nn.Module):
    """T. Lin et al., "Feature pyramid networks for object detection", CVPR 2017, with one head for all levels."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        sizes = [channels * 2**level for level in range(4)]
        self.stem = _layer(3, channels, 7, 2)
        stages = [(channels, channels), *itertools.pairwise(sizes)]
        self.stages = nn.ModuleList(
            nn.Sequential(_layer(a, b, stride=2), *(_layer(b, b) for _ in range(depth))) for a, b in stages
        )
        self.lateral = nn.ModuleList(nn.Conv2d(size, 64, 1) for size in sizes)
        self.smooth = nn.ModuleList(nn.Conv2d(64, 64, 3, padding=1) for _ in sizes)
        self.head = nn.Sequential(_layer(64, 64), nn.Conv2d(64, 12, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Give twelve numbers for every place of every level, all levels in a row."""
        x, levels = self.stem(x), []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            levels.append(lateral(x))
        for below, above in ((2, 3), (1, 2), (0, 1)):
            levels[below] = levels[below] + F.interpolate(levels[above], scale_factor=2, mode="nearest")
        heads = [self.head(smooth(level)) for smooth, level in zip(self.smooth, levels, strict=True)]
        return torch.cat([head.flatten(2) for head in heads], 2)


class _Dense(nn.Module):
    """G. Huang et al., "Densely connected convolutional networks", CVPR 2017: every layer reads all before it."""

    def __init__(self, growth: int, depth: int) -> None:
        super().__init__()
        channels = 2 * growth
        self.stem = nn.Sequential(_layer(3, channels, 7, 2), nn.MaxPool2d(3, 2, 1))
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()
        for _ in range(3):
            layers = []
            for _ in range(6 * depth):
                layers.append(nn.Sequential(_layer(channels, 4 * growth, 1), _layer(4 * growth, growth)))
                channels += growth
            self.blocks.append(nn.ModuleList(layers))
            self.transitions.append(nn.Sequential(_layer(channels, channels // 2, 1), nn.AvgPool2d(2)))
            channels //= 2
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        x = self.stem(x)
        for block, transition in zip(self.blocks, self.transitions, strict=True):
            for layer in block:  # type: ignore[attr-defined]
                x = torch.cat([x, layer(x)], 1)
            x = transition(x)
        y: Tensor = self.head(x)
        return y


class _Attention(nn.Module):
    """A block of a transformer, normalized before its two halves."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.heads, self.qkv, self.out = heads, nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Attend, then map every token."""
        n, length, channels = x.shape
        qkv = self.qkv(self.before(x)).reshape(n, length, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        weights = (q @ k.transpose(-2, -1) * (channels // self.heads) ** -0.5).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(n, length, channels))
        y: Tensor = x + self.mlp(self.between(x))
        return y


class _Transformer(nn.Module):
    """A. Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021; classifies by the tokens' mean."""

    def __init__(self, channels: int, depth: int, tokens: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, channels, 16, 16)
        self.position = nn.Parameter(torch.randn(1, tokens, channels) * 0.02)
        self.blocks = nn.Sequential(*(_Attention(channels, 3) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(channels), nn.Linear(channels, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images of as many patches as there are tokens."""
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        y: Tensor = self.head(self.norm(self.blocks(x)).mean(1))
        return y


BRANCHING: dict[str, Network] = {
    "unet": lambda width, depth: _UNet(_wide(16, width), depth),
    "pyramid": lambda width, depth: _Pyramid(_wide(32, width), depth),
    "densenet": lambda width, depth: _Dense(_wide(32, width), depth),
    "vision_transformer": lambda width, depth: _Transformer(int(64 * width) * 3, 4 * depth, 36),
}
"""By name; the transformer takes images of 96 x 96 pixels."""

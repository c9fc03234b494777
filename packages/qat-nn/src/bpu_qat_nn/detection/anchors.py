"""AnchorGenerator: the boxes that a head refers to, around every place of its feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from bpu_fx_fusion import register_leaf_module

from ..errors import ArgumentError, InputError

__all__ = ["AnchorGenerator"]


class AnchorGenerator(nn.Module):
    """Anchors of some sizes and aspect ratios, as torchvision's ``AnchorGenerator`` makes them.

    Only shapes matter, so quantized maps are taken as they are, and shapes must not change once a model is lowered.

    Args:
        sizes: for each level, the sides of the squares whose areas its anchors have, in pixels; one may be a number.
        aspect_ratios: for each level, heights divided by widths; or the same for all.

    Raises:
        ArgumentError: sizes and aspect ratios of another number of levels.
    """

    def __init__(
        self, sizes: Sequence[Any] = ((128, 256, 512),), aspect_ratios: Sequence[Any] = ((0.5, 1.0, 2.0),)
    ) -> None:
        super().__init__()
        self.sizes = tuple(tuple(each) if isinstance(each, Sequence) else (each,) for each in sizes)
        alike = not isinstance(aspect_ratios[0], Sequence)
        self.aspect_ratios = tuple(map(tuple, [aspect_ratios] * len(self.sizes) if alike else aspect_ratios))
        if len(self.sizes) != len(self.aspect_ratios):
            raise ArgumentError(
                f"expected sizes and aspect_ratios of one number of levels, got {len(self.sizes)} and "
                f"{len(self.aspect_ratios)}"
            )
        self.grid = AnchorGrid([_around_zero(*each) for each in zip(self.sizes, self.aspect_ratios, strict=True)])

    def num_anchors_per_location(self) -> list[int]:
        """Return for each level how many anchors a place has: sizes times aspect ratios."""
        return [len(s) * len(r) for s, r in zip(self.sizes, self.aspect_ratios, strict=True)]

    def forward(self, image_list: Any, feature_maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the anchors of each image, [sum over the levels of H * W * A, 4], in pixels.

        Args:
            image_list: the images [N, C, H, W], or torchvision's ``ImageList`` of them.
            feature_maps: of each level, [N, C, H, W].

        Raises:
            InputError: another number of maps than of levels.
        """
        images: Any = image_list if isinstance(image_list, Tensor | Proxy) else image_list.tensors
        found: list[Tensor] = self.grid(images.shape[-2:], [each.shape[-2:] for each in feature_maps], images.shape[0])
        return found

    def by_level(self, images: Tensor, feature_maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the anchors of each level, [H * W * A, 4], for all images: as ``DetectionPostProcess`` takes them."""
        found: list[Tensor] = self.grid(images.shape[-2:], [each.shape[-2:] for each in feature_maps])
        return found


@register_leaf_module
class AnchorGrid(nn.Module):
    """Anchors repeated over the places of maps; the part of an ``AnchorGenerator`` that tracing keeps as one node.

    Args:
        around_zero: for each level, the anchors of the first place, [A, 4].
    """

    def __init__(self, around_zero: Sequence[Tensor]) -> None:
        super().__init__()
        self.levels = len(around_zero)
        for level, anchors in enumerate(around_zero):
            self.register_buffer(f"level{level}", anchors, persistent=False)

    def forward(
        self, image_size: Sequence[int], map_sizes: Sequence[Sequence[int]], images: int | None = None
    ) -> list[Tensor]:
        """Return the anchors of each level, or with a number of images, those of all levels for each image."""
        if len(map_sizes) != self.levels:
            raise InputError(f"expected feature maps of {self.levels} levels, got {len(map_sizes)}")
        found = [self._over(self.get_buffer(f"level{level}"), image_size, size) for level, size in enumerate(map_sizes)]
        return found if images is None else [torch.cat(found) for _ in range(int(images))]

    def _over(self, anchors: Tensor, image_size: Sequence[int], map_size: Sequence[int]) -> Tensor:
        """Return the anchors of one level, row by row; the stride is in whole pixels."""
        down, across = (
            torch.arange(int(n), device=anchors.device, dtype=anchors.dtype) * (int(length) // int(n))
            for n, length in zip(map_size, image_size, strict=True)
        )
        y, x = torch.meshgrid(down, across, indexing="ij")
        places = torch.stack((x, y, x, y), -1).reshape(-1, 1, 4)
        return (places + anchors).reshape(-1, 4)


def _around_zero(sizes: Sequence[float], aspect_ratios: Sequence[float]) -> Tensor:
    """Return anchors around (0, 0), rounded to whole pixels: for each ratio all sizes."""
    root = torch.tensor(aspect_ratios, dtype=torch.float32).sqrt()[:, None]
    side = torch.tensor(sizes, dtype=torch.float32)
    width, height = (side / root).flatten(), (side * root).flatten()
    return (torch.stack((-width, -height, width, height), 1) / 2).round()

"""Float modules that sample feature maps at positions that are data: grid_sample and RoI align, in torch alone.

RoI align computes what torchvision's operators do, whose modules become these when a model is traced.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError
from ..tracing.leaf import register_leaf_module

__all__ = ["GridSample", "MultiScaleRoIAlign", "RoIAlign", "has_image_numbers", "level_thresholds", "roi_align"]


@register_leaf_module
class GridSample(nn.Module):
    """Sample a map at the positions of a grid, as torch.nn.functional.grid_sample.

    Args:
        mode: "bilinear", "nearest" or "bicubic".
        padding_mode: "zeros", "border" or "reflection".
        align_corners: As in torch.
    """

    def __init__(self, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool | None = None) -> None:
        super().__init__()
        self.mode = mode
        self.padding_mode = padding_mode
        self.align_corners = bool(align_corners)

    def forward(self, x: Tensor, grid: Tensor) -> Tensor:
        """Return (N, C, P, Q) of x (N, C, H, W) and a grid (N, P, Q, 2) of positions in [-1, 1], x first."""
        return F.grid_sample(x, grid, self.mode, self.padding_mode, self.align_corners)

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return f"mode={self.mode!r}, padding_mode={self.padding_mode!r}, align_corners={self.align_corners}"


def _samples(low: Tensor, high: Tensor, count: int, length: int, *, aligned: bool) -> tuple[Tensor, ...]:
    """Return index before, index behind, weight behind and validity of the samples of boxes along one axis."""
    extent = high - low if aligned else (high - low).clamp(min=1.0)
    each = torch.arange(count, dtype=low.dtype, device=low.device)
    position = (low - 0.5 if aligned else low)[:, None] + (each + 0.5) * extent[:, None] / count
    valid = (position >= -1.0) & (position <= length)
    position = position.clamp(0.0, length - 1.0)
    before = position.detach().floor()
    return before.long(), (before.long() + 1).clamp(max=length - 1), position - before, valid


def _pooled(x: Tensor, boxes: Tensor, size: tuple[int, int], samples: int, *, aligned: bool) -> Tensor:
    """Return (n, C, bins, bins) of one image's map (C, H, W) and boxes (n, 4) in its pixels."""
    y0, y1, fy, inside_y = _samples(boxes[:, 1], boxes[:, 3], size[0] * samples, x.shape[1], aligned=aligned)
    x0, x1, fx, inside_x = _samples(boxes[:, 0], boxes[:, 2], size[1] * samples, x.shape[2], aligned=aligned)
    rows = [x[:, each[:, :, None], across[:, None, :]] for each in (y0, y1) for across in (x0, x1)]
    fy, fx = fy[:, :, None], fx[:, None, :]
    top, bottom = (left * (1 - fx) + right * fx for left, right in (rows[:2], rows[2:]))
    blended = (top * (1 - fy) + bottom * fy) * (inside_y[:, :, None] & inside_x[:, None, :])
    bins = blended.reshape(x.shape[0], -1, size[0], samples, size[1], samples)
    return bins.mean((3, 5)).transpose(0, 1)


def level_thresholds(strides: Sequence[float], canonical_scale: float, canonical_level: float) -> list[float]:
    """Return the least side, the root of a box's area, of every level but the first: torchvision's rule."""
    first = math.log2(strides[0])
    return [canonical_scale * 2.0 ** (first + level - canonical_level - 1e-6) for level in range(1, len(strides))]


def roi_align(
    maps: Sequence[Tensor],
    boxes: Sequence[Tensor],
    strides: Sequence[float],
    size: tuple[int, int],
    samples: int,
    *,
    aligned: bool = False,
    thresholds: Sequence[float] = (),
) -> Tensor:
    """Pool boxes, each from the level of its area, by averages of bilinear samples.

    Args:
        maps: (N, C, H, W) for every level.
        boxes: for every image (n, 4): left, top, right, bottom, in pixels of the image.
        strides: pixels of the image per pixel of each level.
        size: bins along height and width.
        samples: along each side of a bin.
        aligned: whether positions are shifted by half a pixel; otherwise boxes are at least one pixel wide.
        thresholds: of ``level_thresholds``; none for one level.

    Returns:
        (boxes of all images, C, bins, bins).
    """
    pooled = []
    for image, each in enumerate(boxes):
        side = ((each[:, 2] - each[:, 0]).clamp(min=0) * (each[:, 3] - each[:, 1]).clamp(min=0)).sqrt()
        level_of = sum(((side >= least).long() for least in thresholds), torch.zeros_like(side, dtype=torch.long))
        found = torch.zeros(())
        for level, (x, stride) in enumerate(zip(maps, strides, strict=True)):
            of_level = _pooled(x[image], each / stride, size, samples, aligned=aligned)
            found = torch.where((level_of == level)[:, None, None, None], of_level, found.to(of_level))
        pooled.append(found)
    return torch.cat(pooled)


def has_image_numbers(boxes: Any) -> bool:
    """Whether boxes are one tensor (n, 5) for all images, the number of the image first."""
    return not isinstance(boxes, list | tuple) and len(boxes.shape) == 2 and boxes.shape[1] == 5


def _bins(output_size: int | Sequence[int]) -> tuple[int, int]:
    return (output_size, output_size) if isinstance(output_size, int) else (output_size[0], output_size[1])


@register_leaf_module
class MultiScaleRoIAlign(nn.Module):
    """Pool boxes from the levels of a pyramid, as torchvision.ops.MultiScaleRoIAlign.

    Args:
        featmap_names: Keys of the levels, if the pyramid is a dict; None for all of them.
        output_size: Bins along height and width, or one number for both.
        sampling_ratio: Samples along each side of a bin, at least 1.
        canonical_scale: Side of a box that belongs to the canonical level.
        canonical_level: That level, as the logarithm of its stride.
        strides: Pixels of the image per pixel of each level; None to find them from `image_shapes`.
        aligned: Whether positions are shifted by half a pixel.

    Raises:
        UsageError: sampling_ratio is not positive; a number of samples that depends on the box, ceil(height / bins),
            is none that an operator of fixed cost can take.
    """

    def __init__(
        self,
        featmap_names: Sequence[str] | None,
        output_size: int | Sequence[int],
        sampling_ratio: int,
        *,
        canonical_scale: float = 224,
        canonical_level: float = 4,
        strides: Sequence[float] | None = None,
        aligned: bool = False,
    ) -> None:
        super().__init__()
        if sampling_ratio < 1:
            raise UsageError(
                f"Expected sampling_ratio of at least 1, got {sampling_ratio}: a number of samples that follows each "
                "box has no integer form. Give a number, such as sampling_ratio=2."
            )
        self.featmap_names = None if featmap_names is None else tuple(featmap_names)
        self.output_size = _bins(output_size)
        self.sampling_ratio = sampling_ratio
        self.canonical_scale = canonical_scale
        self.canonical_level = canonical_level
        self.strides = None if strides is None else tuple(strides)
        self.aligned = aligned

    def levels(self, x: Any) -> list[Any]:
        """Return the maps of the levels, from a tensor, a list or a dict of them."""
        if isinstance(x, Mapping):
            return [value for name, value in x.items() if self.featmap_names is None or name in self.featmap_names]
        return list(x) if isinstance(x, list | tuple) else [x]

    def strides_of(self, shapes: Sequence[Sequence[int]], image_shapes: Any) -> tuple[float, ...]:
        """Return the stride of every level for maps of these shapes.

        Raises:
            UsageError: neither the constructor nor the call tells.
        """
        if self.strides is not None:
            return self.strides
        if image_shapes is None:
            raise UsageError("MultiScaleRoIAlign needs image_shapes at the call, or strides in the constructor.")
        height = max(int(shape[0]) for shape in image_shapes)
        return tuple(2.0 ** -round(math.log2(int(shape[2]) / height)) for shape in shapes)

    def thresholds(self, strides: Sequence[float]) -> list[float]:
        """Return the least side of every level but the first."""
        return level_thresholds(strides, self.canonical_scale, self.canonical_level)

    def forward(self, x: Any, boxes: Any, image_shapes: Any = None) -> Tensor:
        """Return (boxes of all images, C, bins, bins).

        Args:
            x: (N, C, H, W) for every level, in a dict, a list, or alone.
            boxes: For every image (n, 4): left, top, right, bottom, in pixels of the image. Or for all images in one
                tensor (n, 5), the number of the image first.
            image_shapes: Height and width of every image.
        """
        maps = self.levels(x)
        strides = self.strides_of([each.shape for each in maps], image_shapes)
        options: dict[str, Any] = {"aligned": self.aligned, "thresholds": self.thresholds(strides)}
        how = (strides, self.output_size, self.sampling_ratio)
        if not has_image_numbers(boxes):
            return roi_align(maps, boxes, *how, **options)
        images = zip(*(each.split(1) for each in maps), strict=True)
        of_images = [roi_align(of_image, [boxes[:, 1:]], *how, **options) for of_image in images]
        return torch.stack(of_images)[boxes[:, 0].round().long(), torch.arange(len(boxes), device=boxes.device)]

    def extra_repr(self) -> str:
        """Show bins and samples."""
        return f"output_size={self.output_size}, sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"


@register_leaf_module
class RoIAlign(MultiScaleRoIAlign):
    """Pool boxes from one map, as torchvision.ops.RoIAlign.

    Args:
        output_size: Bins along height and width, or one number for both.
        spatial_scale: Pixels of the map per pixel of the image.
        sampling_ratio: Samples along each side of a bin, at least 1. Torchvision's default stands here to be refused.
        aligned: Whether positions are shifted by half a pixel.
    """

    def __init__(
        self,
        output_size: int | Sequence[int],
        spatial_scale: float = 1.0,
        sampling_ratio: int = -1,
        aligned: bool = False,
    ) -> None:
        super().__init__(None, output_size, sampling_ratio, strides=(1.0 / spatial_scale,), aligned=aligned)
        self.spatial_scale = spatial_scale

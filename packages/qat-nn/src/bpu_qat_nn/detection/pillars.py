"""PointPillars (arXiv 1812.05784): point clouds to pillars, and the features of pillars to a map.

On quantized features the map is made in integers: which pillar each place of the map has is computed on the CPU, goes
through a QuantStub of scale 1, and ``gather`` takes the features by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_fx_fusion import register_leaf_module

from ..errors import InputError
from .real_values import real, real_function, real_module

__all__ = ["PillarMap", "PillarPlaces", "PointPillarsScatter", "point_pillars_preprocess"]

NOWHERE = -1
"""Coordinate of a row that is no pillar."""


@real_function
def point_pillars_preprocess(
    points_list: Sequence[Tensor],
    pc_range: Sequence[float],
    voxel_size: Sequence[float],
    max_voxels: int,
    max_points_per_voxel: int,
    use_max: bool,
    norm_range: Sequence[float] | None,
    norm_dims: Sequence[int] | None,
) -> tuple[Tensor, Tensor]:
    """Sort the points of clouds into pillars, in real values.

    Pillars come in the order of their first points, and keep the points that come first. The vendor documents the
    names; order and shapes are those of SECOND (Sensors 2018, 18, 3337).

    Args:
        points_list: for each cloud, points [n, D]: x, y, z and what else is known of them.
        pc_range: x, y, z of the lowest corner, then of the highest, which is outside.
        voxel_size: extent of a pillar in x, y, z.
        max_voxels: how many pillars of a cloud are kept.
        max_points_per_voxel: how many points of a pillar are kept.
        use_max: whether a cloud has max_voxels rows in any case, as deployment needs: rows of zeros, whose coordinates
            are -1, make up the number.
        norm_range: lowest values of all D dimensions, then the highest; None to bring nothing to 0..1.
        norm_dims: the dimensions that are brought from this range to 0..1.

    Returns:
        Features [1, D, pillars of all clouds, max_points_per_voxel], zeros where there is no point, and coordinates
        [pillars of all clouds, 4]: cloud, z, y, x, int32.
    """
    found = [
        _pillars(real(points), pc_range, voxel_size, max_voxels, max_points_per_voxel, norm_range, norm_dims or ())
        for points in points_list
    ]
    features, coordinates = [], []
    for cloud, (values, places) in enumerate(found):
        missing = max_voxels - len(values) if use_max else 0
        features.append(F.pad(values, (0, 0, 0, 0, 0, missing)))
        coordinates.append(F.pad(F.pad(places, (1, 0), value=cloud), (0, 0, 0, missing), value=NOWHERE))
    return torch.cat(features).permute(2, 0, 1)[None].contiguous(), torch.cat(coordinates).to(torch.int32)


def _pillars(
    points: Tensor,
    pc_range: Sequence[float],
    voxel_size: Sequence[float],
    max_voxels: int,
    max_points: int,
    norm_range: Sequence[float] | None,
    norm_dims: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Return features [V, max_points, D] and places [V, 3] (z, y, x) of one cloud."""
    low, high, size = (points.new_tensor(each) for each in (pc_range[:3], pc_range[3:], voxel_size))
    lengths = ((high - low) / size).round().long()
    place = ((points[:, :3] - low) / size).floor().long()
    inside = ((place >= 0) & (place < lengths)).all(1)
    points, place = points[inside], place[inside].flip(1)
    pillar, first = _in_order_of_appearance(place, lengths.flip(0))
    rank = _rank_within(pillar)
    kept = (pillar < max_voxels) & (rank < max_points)
    values = points[kept]
    if norm_range is not None:
        values = _normalized(values, norm_range, norm_dims)
    count = min(len(first), max_voxels)
    features = values.new_zeros(count, max_points, points.shape[1])
    features[pillar[kept], rank[kept]] = values
    return features, place[first[:count]]


def _in_order_of_appearance(place: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pillar of each point, [n], and the first point of each pillar."""
    flat = (place[:, 0] * lengths[1] + place[:, 1]) * lengths[2] + place[:, 2]
    unique, pillar = torch.unique(flat, return_inverse=True)
    ordinal = torch.arange(len(flat), device=flat.device)
    first = torch.full_like(unique, len(flat)).scatter_reduce(0, pillar, ordinal, "amin")
    order = first.argsort()
    return order.argsort()[pillar], first[order]


def _rank_within(pillar: Tensor) -> Tensor:
    """Return how many points before each one have its pillar."""
    order = pillar.argsort(stable=True)
    counts = pillar.bincount()
    begins = (counts.cumsum(0) - counts).repeat_interleave(counts)
    rank = torch.empty_like(pillar)
    rank[order] = torch.arange(len(pillar), device=pillar.device) - begins
    return rank


def _normalized(points: Tensor, norm_range: Sequence[float], norm_dims: Sequence[int]) -> Tensor:
    dims, half = list(norm_dims), len(norm_range) // 2
    low = points.new_tensor([norm_range[dim] for dim in dims])
    high = points.new_tensor([norm_range[half + dim] for dim in dims])
    normalized = points.clone()
    normalized[:, dims] = (points[:, dims] - low) / (high - low)
    return normalized


class PointPillarsScatter(nn.Module):
    """Put the features of pillars at their places in a map, which is 0 elsewhere.

    Quantized features keep their scale. Rows whose coordinates are outside of the map are left out; of several pillars
    at one place the last one stays.

    Args:
        output_shape: [N, C, H, W] of the map, unless the call gives it.
    """

    def __init__(self, output_shape: Sequence[int] | None = None) -> None:
        super().__init__()
        self.output_shape = None if output_shape is None else tuple(output_shape)
        self.places = PillarPlaces()
        self.map = PillarMap()

    def forward(self, voxel_features: Tensor, coords: Tensor, output_shape: Sequence[int] | None = None) -> Tensor:
        """Return the map, [N, C, H, W].

        Args:
            voxel_features: [M, ...]; what is behind the first axis is flattened into C channels.
            coords: [M, (n, ..., y, x)]: the first is the cloud, the last two are row and column; real values.
            output_shape: [N, C, H, W], in place of the constructor's.

        Raises:
            InputError: neither the constructor nor the call gives the shape.
        """
        shape = self.output_shape if output_shape is None else output_shape
        if shape is None:
            raise InputError("PointPillarsScatter needs output_shape, [N, C, H, W], in the constructor or at the call")
        sizes = (shape[0], shape[-2], shape[-1])
        found: Tensor = self.map(voxel_features.flatten(1), self.places(coords, sizes), sizes)
        return found


@real_module
class PillarPlaces(nn.Module):
    """Which pillar each place of a map has; the part of ``PointPillarsScatter`` that stays on the CPU."""

    def forward(self, coords: Tensor, sizes: Sequence[int]) -> Tensor:
        """Return for each place of [N, H, W] a row of the pillars or, where none is, their number M; [1, N * H * W].

        They are integers in float32, which holds them up to 2^24.
        """
        batch, height, width = (int(each) for each in sizes)
        n, y, x = (real(coords)[:, axis].long() for axis in (0, -2, -1))
        inside = (n >= 0) & (n < batch) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        places, count = batch * height * width, len(n)
        flat = torch.where(inside, (n * height + y) * width + x, places)
        row = torch.arange(count, device=flat.device)
        last = row.new_full((places + 1,), -1).scatter_reduce(0, flat, row, "amax")[:places]
        return torch.where(last < 0, count, last).to(torch.float32)[None]


@register_leaf_module
class PillarMap(nn.Module):
    """The map by the row of each place; the part of ``PointPillarsScatter`` that is quantized."""

    def forward(self, features: Tensor, places: Tensor, sizes: Any) -> Tensor:
        """Return [N, C, H, W] of features [M, C] and places [1, N * H * W]; row M stands for zeros."""
        batch, height, width = (int(each) for each in sizes)
        found = F.pad(features, (0, 0, 0, 1))[places[0].long()]
        return found.reshape(batch, height, width, -1).permute(0, 3, 1, 2)

"""Point pillars and filter against plain loops; the map of quantized pillars against the float one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bpu_qat_nn import InputError
from bpu_qat_nn.detection import PointPillarsScatter, filter, point_pillars_preprocess

RANGE = (-2.0, -1.0, 0.0, 2.0, 2.0, 1.0)
SIZE = (0.5, 0.5, 1.0)


def cloud(count: int, seed: int) -> Tensor:
    """Return points [count, 5], some of them outside of the range."""
    low, high = torch.tensor([-2.5, -1.5, -0.2, 0.0, 5.0]), torch.tensor([2.5, 2.5, 1.2, 1.0, 9.0])
    return low + torch.rand(count, 5, generator=torch.Generator().manual_seed(seed)) * (high - low)


def expected_pillars(points: Tensor, most: int, most_points: int) -> dict[tuple[int, int, int], list[list[float]]]:
    pillars: dict[tuple[int, int, int], list[list[float]]] = {}
    for point in points.tolist():
        x, y, z = (int((p - low) // size) for p, low, size in zip(point[:3], RANGE[:3], SIZE, strict=True))
        if not (0 <= x < 8 and 0 <= y < 6 and 0 <= z < 1):
            continue
        if (z, y, x) not in pillars and len(pillars) == most:
            continue
        kept = pillars.setdefault((z, y, x), [])
        if len(kept) < most_points:
            kept.append(point)
    return pillars


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(0, 120), min_size=1, max_size=3),
    most=st.integers(1, 60),
    most_points=st.integers(1, 6),
    use_max=st.booleans(),
    normalized=st.booleans(),
)
def test_pillars_are_those_of_a_loop_over_the_points(
    counts: list[int], most: int, most_points: int, use_max: bool, normalized: bool
) -> None:
    clouds = [cloud(count, seed) for seed, count in enumerate(counts)]
    norm_range = (-2.0, -1.0, 0.0, 0.0, 5.0, 2.0, 2.0, 1.0, 1.0, 9.0) if normalized else None
    features, coords = point_pillars_preprocess(
        clouds, RANGE, SIZE, most, most_points, use_max, norm_range, (0, 2, 4) if normalized else None
    )
    rows, places = [], []
    for index, points in enumerate(clouds):
        pillars = expected_pillars(points, most, most_points)
        missing = most - len(pillars) if use_max else 0
        places += [[index, *place] for place in pillars] + [[-1] * 4] * missing
        for kept in [*pillars.values(), *[[]] * missing]:
            if norm_range is not None:
                lows, highs = norm_range[:5], norm_range[5:]
                kept = [
                    [(v - lows[i]) / (highs[i] - lows[i]) if i in (0, 2, 4) else v for i, v in enumerate(point)]
                    for point in kept
                ]
            rows.append([*kept, *[[0.0] * 5] * (most_points - len(kept))])
    assert coords.dtype is torch.int32
    assert coords.tolist() == places
    assert features.shape == (1, 5, len(rows), most_points)
    torch.testing.assert_close(features[0].permute(1, 2, 0), torch.tensor(rows).reshape(-1, most_points, 5))


def expected_map(features: Tensor, coords: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    found = torch.zeros(shape)
    for row, (n, *_, y, x) in zip(features, coords.tolist(), strict=True):
        if 0 <= n < shape[0] and 0 <= y < shape[2] and 0 <= x < shape[3]:
            found[n, :, y, x] = row.flatten()
    return found


@pytest.mark.parametrize("count", [0, 1, 40])
@pytest.mark.parametrize("at_call", [False, True])
def test_pillars_are_put_in_their_places(count: int, at_call: bool) -> None:
    shape, draw = (2, 6, 4, 5), torch.Generator().manual_seed(0)
    features = torch.randn(count, 2, 3, generator=draw)
    coords = torch.randint(-1, 6, (count, 4), generator=draw)
    scatter = PointPillarsScatter(None if at_call else shape)
    found = scatter(features, coords, shape) if at_call else scatter(features, coords)
    assert torch.equal(found, expected_map(features, coords, shape))


def test_pillars_get_the_gradient_of_their_place() -> None:
    features = torch.ones(3, 2, requires_grad=True)
    found = PointPillarsScatter((1, 2, 2, 2))(features, torch.tensor([[0, 0, 1], [0, 1, 1], [0, 0, 1]]))
    (found * torch.arange(8.0).reshape(found.shape)).sum().backward()
    assert features.grad is not None
    assert features.grad.tolist() == [[0.0, 0.0], [3.0, 7.0], [1.0, 5.0]]  # the first one is covered by the last


def test_scatter_without_a_shape_says_where_to_give_it() -> None:
    with pytest.raises(InputError, match=r"needs output_shape, \[N, C, H, W\]"):
        PointPillarsScatter()(torch.zeros(1, 2), torch.zeros(1, 3))


@pytest.mark.parametrize("idx_range", [None, (1, 3)])
def test_filter_keeps_the_places_that_reach_the_threshold(idx_range: tuple[int, int] | None) -> None:
    draw = torch.Generator().manual_seed(0)
    scores, other = torch.randn(2, 4, 5, 6, generator=draw), torch.randn(2, 3, 5, 6, generator=draw)
    first, last = idx_range or (0, 4)
    for image, found in enumerate(filter(scores, other, threshold=0.8, idx_range=idx_range)):
        expected: list[list[object]] = [[], [], [], [], []]
        for y in range(5):
            for x in range(6):
                values = scores[image, first:last, y, x].tolist()
                if max(values) >= torch.tensor(0.8):
                    row = max(values), values.index(max(values)), [y, x]
                    further = scores[image, :, y, x].tolist(), other[image, :, y, x].tolist()
                    for column, value in zip(expected, (*row, *further), strict=True):
                        column.append(value)
        assert [each.tolist() for each in found] == expected
        assert len(expected[0]) > 3


def test_filter_refuses_maps_of_other_shapes() -> None:
    with pytest.raises(InputError, match="with one N, H and W"):
        filter(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 4), threshold=0.0)

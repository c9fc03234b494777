"""Ranges that the engine moves are those of torch's smallest and largest values and of the moving average."""

from __future__ import annotations

from typing import Any

import pytest

torch: Any = pytest.importorskip("torch")

from bpu_kernels import ArgumentError  # noqa: E402
from bpu_kernels.engine import native_available  # noqa: E402
from bpu_kernels.torch_ops import Range, follow_ends, observe_rows, row_ends  # noqa: E402

pytestmark = pytest.mark.skipif(not native_available(), reason="the native engine is not installed")

SHAPES = [(3, 5, 7, 9), (2, 16, 40, 41), (700, 3, 3, 1), (4, 1), (2, 70_001)]
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def range_of(entries: int) -> Range:
    low, high = torch.linspace(-3.0, -1.0, entries), torch.linspace(1.0, 2.0, entries)
    scale = torch.full((entries,), 0.125)
    return Range(min_val=low, max_val=high, scale=scale, constant=0.25, quant_min=-128, quant_max=127, observes=True)


def batch(shape: tuple[int, ...], memory: str) -> Any:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) + shape[0]))
    return x.contiguous(memory_format=FORMATS[memory]) if x.dim() == 4 else x


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("by_rows", [True, False], ids=["rows", "whole"])
def test_range_moves_towards_the_ends_and_the_scale_follows(
    shape: tuple[int, ...], memory: str, by_rows: bool, threads: int
) -> None:
    x, before = batch(shape, memory), torch.get_num_threads()
    rows = x.reshape(shape[0], -1) if by_rows else x.reshape(1, -1)
    by = range_of(len(rows))
    low = by.min_val + 0.25 * (rows.amin(1) - by.min_val)
    high = by.max_val + 0.25 * (rows.amax(1) - by.max_val)
    torch.set_num_threads(threads)
    try:
        assert observe_rows(x, by)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(by.min_val, low)
    assert torch.equal(by.max_val, high)
    assert torch.equal(by.scale, 2.0 * torch.maximum(-low, high) / 255.0)


@pytest.mark.parametrize("rows", [1, 3])
def test_ends_found_and_followed_apart_are_those_of_one_call(rows: int) -> None:
    x, at_once, apart = batch((3, 50), "contiguous"), range_of(rows), range_of(rows)
    assert observe_rows(x, at_once)
    ends: Any = row_ends(x, rows)
    expected = torch.stack([-x.amin(1), x.amax(1)]) if rows > 1 else torch.stack([-x.min(), x.max()])
    assert torch.equal(ends, expected)
    follow_ends(ends, apart)
    for name in ("min_val", "max_val", "scale"):
        assert torch.equal(getattr(at_once, name), getattr(apart, name))


@pytest.mark.parametrize("place", [0, 1500, 149_999])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf], ids=str)
def test_values_that_are_not_finite_change_nothing(bad: float, place: int) -> None:
    x, by = torch.ones(3, 50_000), range_of(3)
    x.view(-1)[place] = bad
    assert not observe_rows(x, by)
    assert row_ends(x, 3) is None
    assert by.min_val.tolist() == [-3.0, -2.0, -1.0]
    assert by.scale.tolist() == [0.125] * 3


def test_another_number_of_rows_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"expected 3 rows, got a tensor of shape \(4, 5\)"):
        observe_rows(torch.ones(4, 5), range_of(3))
    with pytest.raises(ArgumentError, match=r"expected 6 numbers of torch\.float32"):
        follow_ends(torch.ones(2, 4), range_of(3))

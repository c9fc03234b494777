"""filter: the places of maps whose best channel reaches a threshold, before anything is decoded."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..errors import InputError
from .real_values import real, real_function

__all__ = ["filter"]


@real_function
def filter(*inputs: Tensor, threshold: float, idx_range: tuple[int, int] | None = None) -> list[list[Tensor]]:
    """Keep the places whose largest value, along the channels of the first map, is not below a threshold.

    Quantized maps are dequantized; no DeQuantStub is needed before it. Places come row by row.

    Args:
        inputs: maps [N, C, H, W] with one N, H and W.
        threshold: the least value that stays, a real value.
        idx_range: (first, last) of the channels of the first map that are looked at, last being outside; None for all.

    Returns:
        For each image, of its M places: the largest values [M], their channels [M] (counted in the range, int64), row
        and column [M, 2] (int64), then for each map its values [M, C].

    Raises:
        InputError: maps of other shapes.
    """
    maps = [real(each) for each in inputs]
    if not maps or any(x.dim() != 4 or _places(x) != _places(maps[0]) for x in maps):
        raise InputError(f"expected maps [N, C, H, W] with one N, H and W, got {[tuple(x.shape) for x in inputs]}")
    first, last = (0, maps[0].shape[1]) if idx_range is None else idx_range
    return [_of_image([x[image] for x in maps], threshold, first, last) for image in range(len(maps[0]))]


def _places(x: Tensor) -> tuple[int, ...]:
    return x.shape[0], *x.shape[2:]


def _of_image(maps: Sequence[Tensor], threshold: float, first: int, last: int) -> list[Tensor]:
    largest, channel = maps[0][first:last].max(0)
    wanted = largest >= threshold
    values = [x[:, wanted].T for x in maps]
    return [largest[wanted], channel[wanted], wanted.nonzero(), *values]

"""The bins of adaptive pooling along one axis."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

__all__ = ["bins", "regular"]


def bins(length: int, count: int) -> list[tuple[int, int]]:
    """Return begin and end of every bin, by torch's rule."""
    return [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def regular(found: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """Return length and distance of bins that are all alike, else None."""
    lengths = {end - begin for begin, end in found}
    distances = {b[0] - a[0] for a, b in pairwise(found)}
    if len(lengths) != 1 or len(distances) > 1:
        return None
    return lengths.pop(), distances.pop() if distances else 1

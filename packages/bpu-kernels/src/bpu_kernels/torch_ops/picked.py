"""Movements that pick elements axis by axis, some of them more than once: which they take, in runs of neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

__all__ = ["picked", "runs"]


def picked(shape: Sequence[int], move: Callable[[Tensor], Tensor]) -> tuple[tuple[int, ...], list[list[int]]] | None:
    """Return the shape that a movement gives, and for each of its axes which elements are taken.

    Axes are lined up at the end, as broadcasting does it. None if what is taken of one axis depends on the position
    along another.
    """
    numbers = torch.arange(prod(shape)).reshape(tuple(shape))
    moved = move(numbers)
    found = tuple(moved.shape)
    lined = (1,) * (len(found) - len(shape)) + tuple(shape)
    if len(lined) != len(found) or 0 in found:
        return None
    strides = torch.empty(lined, device="meta").stride()
    picks = [_pick(moved, axis, n, stride) for axis, (n, stride) in enumerate(zip(lined, strides, strict=True))]
    again = numbers.reshape(lined)
    for axis, pick in enumerate(picks):
        again = again.index_select(axis, torch.tensor(pick))
    return (found, picks) if torch.equal(again, moved) else None


def _pick(moved: Tensor, axis: int, length: int, stride: int) -> list[int]:
    """Return which elements of an axis the first row of a movement's result takes."""
    row = moved[tuple(slice(None) if each == axis else 0 for each in range(moved.dim()))]
    return [int(number) // stride % length for number in row]


def runs(pick: Sequence[int]) -> list[range]:
    """Split positions into ranges of rising steps, as few as come of taking each as long as it goes."""
    found: list[range] = []
    at = 0
    while at < len(pick):
        step = pick[at + 1] - pick[at] if at + 1 < len(pick) else 1
        end = at + 1
        while step > 0 and end < len(pick) and pick[end] - pick[end - 1] == step:
            end += 1
        # Two neighbours far apart are no run; the second may begin a longer one.
        if end - at == 2 and step > 1 and end < len(pick):
            end = at + 1
        found.append(range(pick[at], pick[end - 1] + 1, step if end - at > 1 else 1))
        at = end
    return found

"""How the axes of a torch tensor lie in a Program's memory, and what movements of elements that asks for.

A Program stores feature maps channels-last while torch's axes are channels-first. Each value therefore carries an
``order``: stored axis i is axis ``order[i]`` of the torch tensor. Transposing a torch tensor only changes the order;
elements move when an operator needs another one, and not even then if the moved axes have length 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch

__all__ = [
    "Order",
    "Shuffle",
    "Window",
    "channels_last",
    "identity",
    "order_after_squeeze",
    "permuted_axes",
    "shape_after",
    "windows",
]

Order = tuple[int, ...]
Move = Callable[[torch.Tensor], Any]


def identity(rank: int) -> Order:
    """Stored as torch has it."""
    return tuple(range(rank))


def channels_last(rank: int) -> Order:
    """Stored with axis 1 last; fewer than 4 axes as torch has them."""
    return (0, *range(2, rank), 1) if rank >= 4 else identity(rank)


def shape_after(shape: Sequence[int], move: Move) -> tuple[int, ...]:
    """Return the shape that a movement gives, without moving anything."""
    moved = move(torch.empty(tuple(shape), device="meta"))
    return tuple(moved.shape)


def permuted_axes(rank: int, move: Move) -> Order:
    """Return which axis each axis of the result of a permuting movement was."""
    probe = torch.empty((2,) * rank, device="meta")
    place = {stride: axis for axis, stride in enumerate(probe.stride())}
    return tuple(place[stride] for stride in move(probe).stride())


def order_after_squeeze(shape: Sequence[int], order: Order, new_shape: Sequence[int]) -> Order | None:
    """Return an order for a shape that differs by axes of length 1 only; None if it differs by more.

    Axes of length 1 may lie anywhere in memory, so the order that operators like best is chosen.
    """
    old, new = ([axis for axis, n in enumerate(s) if n != 1] for s in (shape, new_shape))
    if [shape[axis] for axis in old] != [new_shape[axis] for axis in new]:
        return None
    renamed = dict(zip(old, new, strict=True))
    stored = [renamed[axis] for axis in order if axis in renamed]
    rank = len(new_shape)
    for candidate in (channels_last(rank), identity(rank)):
        if [axis for axis in candidate if new_shape[axis] != 1] == stored:
            return candidate
    ones = [axis for axis in range(rank) if new_shape[axis] == 1]
    batch = [axis for axis in stored[:1] if axis == 0]  # it stays in front, where operators cannot move it from
    return (*batch, *ones, *stored[len(batch) :])


@dataclass(frozen=True)
class Window:
    """Part of a tensor: start, stop and step of every axis, and the shape that torch gives the part."""

    start: tuple[int, ...]
    stop: tuple[int, ...]
    step: tuple[int, ...]
    shape: tuple[int, ...]


def windows(shape: Sequence[int], move: Move) -> list[Window] | None:
    """Return what a slicing movement takes, one window for each tensor that it gives.

    None if it is no slicing, but picks elements by a list or a tensor.
    """
    source = torch.empty(tuple(shape), device="meta")
    moved = move(source)
    parts = list(moved) if isinstance(moved, (tuple, list)) else [moved]
    whole = source.untyped_storage()._cdata  # ``_base`` is not there below autograd, where captures are followed
    if any(part.untyped_storage()._cdata != whole for part in parts):
        return None
    return [_window(source, part) for part in parts]


def _window(source: torch.Tensor, part: torch.Tensor) -> Window:
    start, stop, step = [], [], []
    offset = int(part.storage_offset())
    taken = {stride: n for n, stride in zip(part.shape, part.stride(), strict=True) if n > 1}
    for length, stride in zip(source.shape, source.stride(), strict=True):
        first = offset // stride % length if length > 1 else 0
        along = [s for s in taken if length > 1 and stride <= s < stride * length]
        each = along[0] // stride if along else 1
        count = taken[along[0]] if along else 1
        start.append(first)
        stop.append(first + (count - 1) * each + 1)
        step.append(each)
    return Window(tuple(start), tuple(stop), tuple(step), tuple(part.shape))


@dataclass(frozen=True)
class Shuffle:
    """A flattened axis whose features lie in memory as (H, W, C) while torch counts them as (C, H, W)."""

    axis: int
    """Axis of the torch tensor."""
    tile: tuple[int, ...]
    """Lengths as torch counts them, channels first."""
    source: Any
    """The tensor that was flattened."""

    def logical_index(self) -> np.ndarray:
        """Return, for each stored position, the feature that lies there."""
        return np.moveaxis(np.arange(prod(self.tile)).reshape(self.tile), 0, -1).ravel()

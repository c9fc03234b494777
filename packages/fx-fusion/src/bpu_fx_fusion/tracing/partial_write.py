"""Writing into a part of a tensor while it is traced: the result is joined from what stays and what is written.

Given:  `x[:, :, 1:] = y`
Result: from here on `x` is `torch.cat([x.narrow(2, 0, 1), y], 2)`
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node, Proxy

from ..errors import PartialWriteError, TraceError
from .inplace import is_view

__all__ = ["refuse_stale_views", "written"]

Window = tuple[int, int, int]
"""Axis, begin, end."""


def written(x: Proxy, index: Any, value: Any, examples: tuple[Any, Any]) -> Proxy:
    """Return a tensor in which a part has been written to.

    Args:
        x: The tensor.
        index: Of the part: whole numbers, slices without steps, an ellipsis.
        value: What is written, in the shape of the part.
        examples: Examples of the tensor and of the value.

    Raises:
        PartialWriteError: The write cannot be recorded.
    """
    example, given = examples
    if not isinstance(example, Tensor) or not isinstance(given, Tensor):
        raise PartialWriteError("Writing into a part of a tensor is recorded where a tensor of known shape is written.")
    if is_view(x.node):
        raise PartialWriteError(
            "Writing into a part of a view changes the tensor that it is a view of; clone that first."
        )
    windows, single = _windows(index, tuple(example.shape))
    for axis in single:
        value, given = value.unsqueeze(axis), given.unsqueeze(axis)
    shape = list(example.shape)
    for axis, begin, end in windows:
        shape[axis] = end - begin
    if list(given.shape) != shape:
        raise PartialWriteError(f"A part of the shape {tuple(shape)} is written with a value of {tuple(given.shape)}.")
    if any(axis == 0 for axis, _, _ in windows):
        raise PartialWriteError("Writing to some elements of the batch is not recorded.")
    joined: Proxy = _joined(x, value, windows, tuple(example.shape))
    return joined


def _windows(index: Any, shape: Sequence[int]) -> tuple[list[Window], list[int]]:
    """Return the parts of the axes that are written to, those that are not whole, and the axes that have an index."""
    entries = list(index) if isinstance(index, tuple) else [index]
    if any(entry is Ellipsis for entry in entries):
        at = next(place for place, entry in enumerate(entries) if entry is Ellipsis)
        entries[at : at + 1] = [slice(None)] * (len(shape) - len(entries) + 1)
    windows: list[Window] = []
    single = []
    for axis, entry in enumerate(entries):
        if isinstance(entry, slice) and entry.step in (None, 1):
            begin, end, _ = entry.indices(shape[axis])
        elif isinstance(entry, int):
            begin = entry % shape[axis]
            end = begin + 1
            single.append(axis)
        else:
            raise PartialWriteError(f"Writing to {entry!r} of an axis is not recorded: whole numbers and slices are.")
        if (begin, end) != (0, shape[axis]):
            windows.append((axis, begin, end))
    return windows, single


def _joined(x: Any, value: Any, windows: Sequence[Window], shape: Sequence[int]) -> Any:
    if not windows:
        return value
    (axis, begin, end), *rest = windows
    inside = _joined(x.narrow(axis, begin, end - begin), value, rest, shape)
    before = [x.narrow(axis, 0, begin)] if begin else []
    after = [x.narrow(axis, end, shape[axis] - end)] if end < shape[axis] else []
    return torch.cat([*before, inside, *after], axis) if before or after else inside


def refuse_stale_views(graph: Graph, writes: Sequence[tuple[Node, Node]]) -> None:
    """Raise TraceError if a view that was taken before a write is used after it: it would hold the old values.

    Args:
        graph: What was recorded.
        writes: The tensor before and after each write.
    """
    position = {node: place for place, node in enumerate(graph.nodes)}
    for before, after in writes:
        stale = [user for user in before.users if is_view(user) and position[user] < position[after]]
        while stale:
            view = stale.pop()
            if any(position[user] > position[after] for user in view.users):
                raise TraceError(
                    f"{view} is a part of {before}, taken before another part of it is written to and used after "
                    "that. Take it again, or clone it."
                )
            stale += [user for user in view.users if is_view(user)]

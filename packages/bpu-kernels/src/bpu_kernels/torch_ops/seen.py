"""What torch sees of dense memory by strides, as kernels of a Program: parts of axes, in another order, repeated."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ..kernel import Kernel
from ..ops.concat import Concat
from ..ops.layout import Reshape, Slice, Transpose

__all__ = ["seen"]


def seen(count: int, shape: Sequence[int], strides: Sequence[int], offset: int) -> list[tuple[Kernel, int]] | None:
    """Return what makes a tensor of this shape of ``count`` elements, kernel by kernel.

    Each stride of the tensor is the length of what one step along its axis passes over. Where they divide one another,
    the memory has an axis for each of them, of which the tensor takes a part.

    Args:
        count: elements of the memory, of whatever shape.
        shape: of the tensor.
        strides: of the tensor, in elements; 0 along what is repeated.
        offset: of its first element.

    Returns:
        Kernels, and how many times each is given what the one before gave; the last gives the tensor's shape. None
        where the tensor cannot be taken apart into axes, as overlapping windows cannot.
    """
    long = [axis for axis, (length, stride) in enumerate(zip(shape, strides, strict=True)) if length > 1 and stride]
    axes = sorted(long, key=lambda axis: strides[axis], reverse=True)
    spans = [count, *(strides[axis] for axis in axes), 1]
    if any(outer % inner for outer, inner in pairwise(spans)):
        return None
    wholes = tuple(outer // inner for outer, inner in pairwise(spans))
    starts = tuple(offset // span % whole for span, whole in zip(spans[1:], wholes, strict=True))
    # Below the least stride lies an axis of which the tensor takes one element.
    stops = tuple(start + length for start, length in zip(starts, [*(shape[axis] for axis in axes), 1], strict=True))
    if any(stop > whole for stop, whole in zip(stops, wholes, strict=True)):
        return None
    return [
        *_part(wholes, starts, stops),
        *_in_order(tuple(shape[axis] for axis in axes), sorted(range(len(axes)), key=axes.__getitem__)),
        *_repeated(shape, strides),
        (Reshape(shape=tuple(shape) or (1,)), 1),
    ]


def _part(wholes: tuple[int, ...], starts: tuple[int, ...], stops: tuple[int, ...]) -> list[tuple[Kernel, int]]:
    """Take a part of every axis."""
    if starts == (0,) * len(wholes) and stops == wholes:
        return []
    kept = slice(None, -1 if wholes[-1] == 1 and len(wholes) > 1 else None)  # elements are copied along the last axis
    window = Slice(start=starts[kept], stop=stops[kept], step=(1,) * len(wholes[kept]))
    return [(Reshape(shape=wholes[kept]), 1), (window, 1)]


def _in_order(lengths: tuple[int, ...], order: list[int]) -> list[tuple[Kernel, int]]:
    """Transpose; the batch has to stay in front, so there is an axis of length 1 before it if it moves."""
    if order == sorted(order):
        return []
    if order[0] == 0:
        return [(Reshape(shape=lengths), 1), (Transpose(axes=tuple(order)), 1)]
    return [(Reshape(shape=(1, *lengths)), 1), (Transpose(axes=(0, *(axis + 1 for axis in order))), 1)]


def _repeated(shape: Sequence[int], strides: Sequence[int]) -> list[tuple[Kernel, int]]:
    """Join what is repeated along the axes without stride."""
    repeats = [axis for axis, (length, stride) in enumerate(zip(shape, strides, strict=True)) if length > 1 > stride]
    if not repeats:
        return []
    once: Kernel = Reshape(shape=tuple(1 if axis in repeats else length for axis, length in enumerate(shape)))
    return [(once, 1), *((Concat(axis=axis), shape[axis]) for axis in repeats)]

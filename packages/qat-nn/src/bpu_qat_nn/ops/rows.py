"""Rows: the axes that something is computed over, brought to the end as one; and back."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from ..errors import InputError
from ..qtensor import QTensor

__all__ = ["axes_of", "back_from_rows", "rows"]


def axes_of(dim: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """Return the axes that a reduction runs over, ascending and not negative."""
    given = range(rank) if dim is None else [dim] if isinstance(dim, int) else dim
    return tuple(sorted({axis % rank for axis in given}))


def rows(x: QTensor, dim: int | Sequence[int] | None) -> QTensor:
    """Return x with the axes ``dim`` as one, the last.

    Raises:
        InputError: the batch is among the axes.
    """
    moving: Any = x
    axes = axes_of(dim, len(x.shape))
    if axes[0] == 0:
        raise InputError(f"nothing is computed along the batch: axes {axes} of the shape {tuple(x.shape)}")
    rest = [axis for axis in range(len(x.shape)) if axis not in axes]
    order = (*rest, *axes)
    moved = moving if order == tuple(range(len(x.shape))) else moving.permute(order)
    flat: QTensor = moved.reshape([*(x.shape[axis] for axis in rest), prod(x.shape[axis] for axis in axes)])
    return flat


def back_from_rows(y: QTensor, x: QTensor, dim: int | Sequence[int] | None, *, keepdim: bool) -> QTensor:
    """Return what was computed of ``rows(x, dim)``, one element of each, with x's axes."""
    moving: Any = y
    axes, rank = axes_of(dim, len(x.shape)), len(x.shape)
    lengths = [1 if axis in axes else length for axis, length in enumerate(x.shape)]
    kept: QTensor = moving.reshape(lengths if keepdim else [lengths[axis] for axis in range(rank) if axis not in axes])
    return kept

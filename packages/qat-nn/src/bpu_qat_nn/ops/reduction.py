"""Sums and means over axes, as kernels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch

from bpu_kernels.dtypes import qint8
from bpu_kernels.kernel import Kernel
from bpu_kernels.march import MarchRow
from bpu_kernels.multiplier import choose_multiplier
from bpu_kernels.ops.reduce import Sum

from ..errors import InputError
from ..op import Operator, Output
from ..qtensor import QTensor
from .average import average
from .rescale import as_multiplier

__all__ = ["axes_of", "expect_reducible", "reduce_axes"]


def axes_of(dim: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """Return the axes that a reduction runs over, ascending and not negative."""
    given = range(rank) if dim is None else [dim] if isinstance(dim, int) else dim
    return tuple(sorted({axis % rank for axis in given}))


def expect_reducible(label: str, row: MarchRow, shape: Sequence[int], dim: int | Sequence[int] | None) -> None:
    """Raise InputError unless a march can sum over these axes of a tensor of this shape."""
    axes, rank = axes_of(dim, len(shape)), len(shape)
    neighbours = axes == tuple(range(axes[0], axes[-1] + 1))
    if (rank == 4 and axes == (2, 3)) or ("sum" not in row.refused_kernels and neighbours and axes[0] != 0):
        return
    raise InputError(
        f"{label}: sum or mean over axes {axes} of a tensor of {rank} axes is not available on {row.march}: (2, 3) of "
        "four axes always is; elsewhere than on bernoulli2 neighbouring axes without the batch are"
    )


def reduce_axes(
    operator: Operator, out: Output, x: QTensor, *, dim: int | Sequence[int] | None, keepdim: bool, divides: bool
) -> QTensor:
    """Sum, or average, over axes that ``expect_reducible`` accepts.

    Height and width of a feature map are one global pooling (14); neighbouring axes are summed as one (29).
    """
    axes, rank = axes_of(dim, len(x.shape)), len(x.shape)
    count = prod(int(x.shape[axis]) for axis in axes)
    if rank == 4 and axes == (2, 3):
        window = (int(x.shape[2]), int(x.shape[3]))
        y = average(operator, x, out, window=window, divisor=count if divides else 1)
    else:
        y = _sum_as_one(operator, out, x, axes, count if divides else 1)
    if keepdim:
        return y
    flat: Any = y.reshape([n for axis, n in enumerate(x.shape) if axis not in axes])
    result: QTensor = flat
    return result


def _sum_as_one(operator: Operator, out: Output, x: QTensor, axes: tuple[int, ...], divisor: int) -> QTensor:
    shape = [int(n) for n in x.shape]
    length = prod(shape[axis] for axis in axes)
    flat: Any = x if len(axes) == 1 else x.reshape([*shape[: axes[0]], length, *shape[axes[-1] + 1 :]])

    def build() -> Kernel:
        bound = torch.full_like(x.scale, float(-qint8.min * length), dtype=torch.float64)
        multiplier = x.scale.double() / (out.scale.double() * divisor)
        chosen = choose_multiplier(multiplier, bound, qint8, operator.row, xp=torch)
        return Sum(axis=axes[0], multiplier=as_multiplier(chosen))

    kernel = operator.derived.get([x.scale, out.scale], build, "reduce", axes[0], length, divisor)
    y: QTensor = flat.invoke(kernel, operator.row, flat, scale=out.scale, dtype=out.dtype)
    if len(axes) == 1:
        return y
    kept: Any = y.reshape([1 if axis in axes else n for axis, n in enumerate(shape)])
    result: QTensor = kept
    return result

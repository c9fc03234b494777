"""Averages and sums over windows of int8, as kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from bpu_kernels.dtypes import QuantDType, qint8
from bpu_kernels.kernel import Kernel
from bpu_kernels.multiplier import choose_multiplier
from bpu_kernels.ops.pool import AvgPool2d, GlobalAvgPool2d

from ...op import Operator, Output, type_problems
from ...qtensor import QTensor
from ..rescale import as_multiplier, rescale

__all__ = ["average", "int8_problems", "pair"]


def pair(value: Any) -> tuple[int, int]:
    """Return a number given once or per axis as two."""
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def int8_problems(dtype: QuantDType, inputs: Sequence[QuantDType | None]) -> list[str]:
    """Return problems unless inputs and output are int8."""
    found = type_problems(inputs, [qint8])
    return found if dtype is qint8 else [*found, f"output type {dtype} (allowed: {qint8})"]


def average(
    operator: Operator,
    x: QTensor,
    out: Output,
    *,
    window: tuple[int, int],
    divisor: int,
    stride: tuple[int, int] | None = None,
    pad: tuple[int, int] = (0, 0),
    ceil_mode: bool = False,
) -> QTensor:
    """Average or sum windows of int8.

    A window of one element takes every so many elements and changes the scale. One as large as the map, without
    padding, is a global pooling. Bernoulli2 floors in global pooling without a way to compensate, but not in average
    pooling: maps that fit its window (7 x 7) are pooled with one window.
    """
    row, size = operator.row, (int(x.shape[2]), int(x.shape[3]))
    if window == (1, 1) and pad == (0, 0) and divisor == 1:
        taken: Any = x if stride in (None, (1, 1)) else x[:, :, :: stride[0], :: stride[1]]
        return rescale(operator, taken, out)
    whole = window == size and pad == (0, 0)
    is_global = whole and not (row.adds_compensation and all(n in row.avg_pool_kernel for n in size))

    def build() -> Kernel:
        bound = torch.full_like(x.scale, float(-qint8.min * window[0] * window[1]), dtype=torch.float64)
        multiplier = choose_multiplier(
            x.scale.double() / (out.scale.double() * divisor),
            bound,
            qint8,
            row,
            right_shift=row.global_pool_right_shift if is_global else None,
            xp=torch,
        )
        by = as_multiplier(multiplier)
        if is_global:
            return GlobalAvgPool2d(multiplier=by)
        return AvgPool2d(multiplier=by, kernel=window, stride=stride or window, pad=pad, ceil_mode=ceil_mode)

    key = (window, divisor, stride, pad, ceil_mode, is_global)
    kernel = operator.derived.get([x, out], build, "average", *key)
    return x.invoke(kernel, row, x, scale=out.scale, dtype=out.dtype)

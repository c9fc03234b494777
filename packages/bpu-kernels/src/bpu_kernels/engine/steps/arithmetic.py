"""Steps of arithmetic between tensors, and of functions of every element."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from ...dtypes import qint8
from ...fixed_point import compensation
from ...kernel import IntArray, Kernel
from ...ops.elementwise import Add, AddScaled, Mul, Relu, Rescale
from ...ops.linear import Matmul
from ...ops.lut import Lut8, Lut16
from ..words import broadcast_strides
from .context import Context

__all__ = ["STEPS"]


def _matmul(context: Context, kernel: Matmul) -> None:
    words = context.begin("matmul")
    leading = context.out.spec.shape[:-2]
    for each in (*context.inputs, context.out):
        words.tensor(each)
    for each in context.inputs:
        batches = each.spec.shape[:-2]
        words.array(np.broadcast_to(np.arange(prod(batches)).reshape(batches), leading), "int64")
    words.requantizer(kernel.multiplier, context.channels, qint8, rounds=context.row.rounds)


def _operands(context: Context, opcode: str) -> None:
    words = context.begin(opcode)
    for each in context.inputs:
        words.tensor(each)
        words.list(broadcast_strides(each, context.out.spec))
    words.tensor(context.out)


def _add(context: Context, kernel: Add) -> None:
    _operands(context, "add")
    words, channels = context.words, context.channels
    for values in (1, kernel.input_left_shift, kernel.residual.sumin_scale, kernel.residual.sumin_left_shift):
        words.per_channel(values, channels)
    words.requantizer(kernel.multiplier, channels, kernel.out_dtype, rounds=context.row.rounds)


def _add_scaled(context: Context, kernel: AddScaled) -> None:
    _operands(context, "add")
    words, channels = context.words, context.channels
    for values in (kernel.input_scale, 0, kernel.sumin_scale, 0):
        words.per_channel(values, channels)
    words.requantizer(kernel.multiplier, channels, qint8, rounds=False, before=compensation(kernel.multiplier))


def _mul(context: Context, kernel: Mul) -> None:
    _operands(context, "multiply")
    before = compensation(kernel.multiplier) if context.row.adds_compensation else 0
    context.words.requantizer(
        kernel.multiplier, context.channels, kernel.out_dtype, rounds=context.row.rounds, before=before
    )


def _table8(context: Context, table: IntArray) -> None:
    words = context.begin("table8")
    words.tensor(context.inputs[0])
    words.tensor(context.out)
    words.array(table, "int8")


def _rescale(context: Context, kernel: Rescale) -> None:
    """As a table where there are 256 values only: the reference run over all of them."""
    x = context.inputs[0].spec.dtype
    if x is kernel.out_dtype is qint8 and all(len(values) == 1 for values in vars(kernel.multiplier).values()):
        return _table8(context, kernel.run(context.row, np.arange(-128, 128, dtype=np.int8)))
    words = context.begin("rescale")
    words.tensor(context.inputs[0])
    words.tensor(context.out)
    words.requantizer(
        kernel.multiplier,
        context.channels,
        kernel.out_dtype,
        rounds=context.row.rounds,
        before=0 if context.row.rounds else compensation(kernel.multiplier),
        saturates_between=False,
    )
    return None


def _relu(context: Context, kernel: Relu) -> None:
    words = context.begin("relu")
    words.tensor(context.inputs[0])
    words.tensor(context.out)


def _table16(context: Context, kernel: Lut16) -> None:
    words, line = context.begin("table16"), kernel.line
    words.tensor(context.inputs[0])
    words.tensor(context.out)
    shifted = line.b.astype(np.int64) << line.add_lsh
    for values in (line.k, shifted, line.sum_rsh, line.max, kernel.tables):
        words.array(values, "int64")
    words.numbers(kernel.rounds)


STEPS: dict[type[Kernel], Callable[[Context, Any], None]] = {
    Add: _add,
    AddScaled: _add_scaled,
    Lut16: _table16,
    Lut8: lambda context, kernel: _table8(context, kernel.table),
    Matmul: _matmul,
    Mul: _mul,
    Relu: _relu,
    Rescale: _rescale,
}

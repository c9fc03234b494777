"""Arithmetic between tensors, as kernels: sums, differences, products, the larger of two, concatenation."""

from __future__ import annotations

import torch

from bpu_kernels.dtypes import QuantDType, qint8, qint16
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.kernel import Kernel
from bpu_kernels.multiplier import (
    AddScales,
    ResidualScale,
    choose_add_scaled,
    choose_add_shifted,
    choose_multiplier,
)
from bpu_kernels.ops.concat import Concat
from bpu_kernels.ops.elementwise import Add, AddScaled, Extremum, Mul
from bpu_kernels.ops.linear import Matmul
from bpu_kernels.ops.lut import Lut8

from ..errors import InputError
from ..op import Operator, Output
from ..qtensor import QTensor
from .rescale import as_multiplier, rescale, through_int16, widen
from .segment_table import affine_table
from .spread import spread
from .table import look_up

__all__ = ["add", "add_scalar", "concat", "larger", "matmul", "mul", "mul_scalar", "smaller", "sub"]


def _int8_first(x: QTensor, y: QTensor) -> tuple[QTensor, QTensor]:
    """Order operands of two types as the hardware takes them."""
    return (y, x) if y.dtype is qint8 else (x, y)


def add(operator: Operator, out: Output, x: QTensor, y: QTensor) -> QTensor:
    """Add: (8) on Bayes, (9) on Bernoulli2."""
    x, y = spread(x, y, operator.row)
    if out.dtype is qint8 and qint16 in (x.dtype, y.dtype):
        return rescale(operator, add(operator, through_int16(operator, out), x, y), out)
    if out.dtype is qint16 and x.dtype is qint8 and y.dtype is qint8:
        y = widen(operator, y)
    if x.dtype is not y.dtype:
        x, y = _int8_first(x, y)
    elif operator.derived.get([x, y], lambda: float(x.scale) > float(y.scale), "order"):
        x, y = y, x  # a smaller first scale is the finer unit for the sum
    return _sum(operator, out, x, y, sign=1)


def sub(operator: Operator, out: Output, x: QTensor, y: QTensor) -> QTensor:
    """Subtract: addition with a negative scale; Bernoulli2 has none and negates by a table."""
    x, y = spread(x, y, operator.row)
    if not operator.row.rounds:
        return add(operator, out, x, negate(operator, y))
    if out.dtype is qint8 and qint16 in (x.dtype, y.dtype):
        return rescale(operator, sub(operator, through_int16(operator, out), x, y), out)
    if out.dtype is qint16:
        y = widen(operator, y)
    return _sum(operator, out, x, y, sign=-1)


def negate(operator: Operator, x: QTensor) -> QTensor:
    """Change the sign; the smallest step has no opposite and becomes the largest."""
    if x.dtype is qint16:
        kernel: Kernel = affine_table(-1.0, 0.0, x.scale.device)
    else:
        table = torch.arange(128, -128, -1, device=x.scale.device).clamp(max=qint8.max).to(torch.int8)
        kernel = Lut8(table=table)
    return x.invoke(kernel, operator.row, x, scale=x.scale, dtype=x.dtype)


def _sum(operator: Operator, out: Output, x: QTensor, y: QTensor, *, sign: int) -> QTensor:
    row = operator.row

    def build() -> Kernel:
        scales = (x.scale.double(), y.scale.double(), out.scale.double())
        if not row.rounds:
            chosen = choose_add_scaled(*scales, row, xp=torch)
            return AddScaled(
                input_scale=chosen.input_factor.to(torch.int32),
                sumin_scale=chosen.residual.sumin_scale.to(torch.int32),
                multiplier=_sum_multiplier(chosen, (x.dtype, y.dtype), out.dtype, operator),
            )
        chosen = choose_add_shifted(*scales, row, bits=max(x.dtype.bits, y.dtype.bits), xp=torch)
        residual = ResidualScale(
            sumin_scale=(sign * chosen.residual.sumin_scale).to(torch.int32),
            sumin_left_shift=chosen.residual.sumin_left_shift.to(torch.int32),
        )
        return Add(
            input_left_shift=chosen.input_factor.to(torch.int32),
            residual=residual,
            multiplier=_sum_multiplier(chosen, (x.dtype, y.dtype), out.dtype, operator),
            out_dtype=out.dtype,
        )

    kernel = operator.derived.get([x, y, out], build, "sum", sign)
    return x.invoke(kernel, row, x, y, scale=out.scale, dtype=out.dtype)


def _sum_multiplier(
    chosen: AddScales, inputs: tuple[QuantDType, QuantDType], out: QuantDType, operator: Operator
) -> Multiplier:
    x, y = inputs
    factor = chosen.input_factor.double() if not operator.row.rounds else 2.0 ** chosen.input_factor.double()
    bound = factor * -x.min + chosen.residual.sumin_scale * 2.0 ** chosen.residual.sumin_left_shift.double() * -y.min
    return as_multiplier(choose_multiplier(chosen.multiplier, bound, out, operator.row, xp=torch))


def mul(operator: Operator, out: Output, x: QTensor, y: QTensor) -> QTensor:
    """Multiply (10)."""
    x, y = spread(x, y, operator.row)
    if out.dtype is qint8 and qint16 in (x.dtype, y.dtype):
        return rescale(operator, mul(operator, through_int16(operator, out), x, y), out)
    if out.dtype is qint16 and x.dtype is qint8 and y.dtype is qint8:
        y = widen(operator, y)
    x, y = _int8_first(x, y)

    def build() -> Kernel:
        bound = torch.full_like(x.scale, float(x.dtype.min * y.dtype.min), dtype=torch.float64)
        multiplier = x.scale.double() * y.scale.double() / out.scale.double()
        chosen = choose_multiplier(multiplier, bound, out.dtype, operator.row, xp=torch)
        return Mul(multiplier=as_multiplier(chosen), out_dtype=out.dtype)

    kernel = operator.derived.get([x, y, out], build, "mul")
    return x.invoke(kernel, operator.row, x, y, scale=out.scale, dtype=out.dtype)


def larger(operator: Operator, out: Output, x: QTensor, y: QTensor) -> QTensor:
    """Return the larger of two elements (47)."""
    return _extremum(operator, out, x, y, Extremum())


def smaller(operator: Operator, out: Output, x: QTensor, y: QTensor) -> QTensor:
    """Return the smaller of two elements (47)."""
    return _extremum(operator, out, x, y, Extremum(largest=False))


def _extremum(operator: Operator, out: Output, x: QTensor, y: QTensor, kernel: Extremum) -> QTensor:
    """Bring both to the output's scale, then choose."""
    x, y = (rescale(operator, each, out) for each in spread(x, y, operator.row))
    return x.invoke(kernel, operator.row, x, y, scale=out.scale, dtype=out.dtype)


def matmul(operator: Operator, out: Output, x: QTensor, y: QTensor) -> QTensor:
    """Multiply matrices of int8."""
    if qint16 in (x.dtype, y.dtype, out.dtype):
        raise InputError(
            f"{operator.label}: matmul takes int8 and gives int8; use an 8-bit activation qconfig for it and its inputs"
        )

    def build() -> Kernel:
        bound = torch.full_like(x.scale, 2.0**14 * x.shape[-1], dtype=torch.float64)
        multiplier = x.scale.double() * y.scale.double() / out.scale.double()
        return Matmul(multiplier=as_multiplier(choose_multiplier(multiplier, bound, qint8, operator.row, xp=torch)))

    kernel = operator.derived.get([x, y, out], build, "matmul", x.shape[-1])
    return x.invoke(kernel, operator.row, x, y, scale=out.scale, dtype=out.dtype)


def add_scalar(operator: Operator, out: Output, x: QTensor, y: float) -> QTensor:
    """Add a number, by table."""
    if x.dtype is qint16:
        wide = out if out.dtype is qint16 else through_int16(operator, out)

        def build() -> Kernel:
            return affine_table(float(x.scale) / float(wide.scale), y / float(wide.scale), x.scale.device)

        kernel = operator.derived.get([x, wide], build, "add_scalar", y)
        moved = x.invoke(kernel, operator.row, x, scale=wide.scale, dtype=qint16)
        return rescale(operator, moved, out)
    if out.dtype is qint16:
        return add_scalar(operator, out, widen(operator, x), y)
    return look_up(operator, lambda values: values + y, x, out, "add_scalar", y)


def mul_scalar(operator: Operator, x: QTensor, y: float) -> QTensor:
    """Multiply by a number: the integers stay, or change their sign, and the scale takes the factor."""
    if y == 0.0:
        return look_up(operator, torch.zeros_like, x, Output(x.scale, x.dtype), "zero")
    moved = negate(operator, x) if y < 0 else x
    scale = operator.derived.get([x], lambda: x.scale * abs(y), "mul_scalar", y)
    return moved.with_scale(scale)


def concat(operator: Operator, out: Output, *inputs: QTensor, dim: int) -> QTensor:
    """Bring every input to the output's scale and type, then join them."""
    parts = [rescale(operator, x, out) for x in inputs]
    kernel = Concat(axis=dim % len(parts[0].shape))
    return parts[0].invoke(kernel, operator.row, *parts, scale=out.scale, dtype=out.dtype)

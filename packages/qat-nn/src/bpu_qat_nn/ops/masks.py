"""Masks, integers 0 and 1 of scale 1: where steps are in a relation to a number, and choosing by what a mask says."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bpu_kernels.dtypes import qint8, qint16
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.kernel import Kernel
from bpu_kernels.multiplier import ResidualScale
from bpu_kernels.ops.elementwise import Add, Mul, Rescale
from bpu_kernels.ops.lut import Lut8

from ..capture.captured_tensor import uncaptured
from ..op import Operator, Output
from ..qtensor import QTensor
from .clip import two_lines
from .rescale import unit_scale

__all__ = ["as_mask", "chosen", "compared", "inverse_of", "joined", "kept", "level"]


def exactly(device: torch.device) -> Multiplier:
    """Return the multiplier that leaves integers as they are."""
    with uncaptured():
        zero, one = (torch.full((1,), value, dtype=torch.int32, device=device) for value in (0, 1))
    return Multiplier(accu_right_shift=zero, output_scale=one, output_right_shift=zero)


def _from_table(operator: Operator, x: QTensor, truths: Callable[[Tensor], Tensor], *key: object) -> QTensor:
    """Return a mask of int8 steps by what is true of each of the 256."""

    def build() -> Kernel:
        return Lut8(table=truths(torch.arange(-128, 128)).to(torch.int8).to(x.scale.device))

    kernel = operator.derived.get([x], build, "mask", *key)
    return x.invoke(kernel, operator.row, x, scale=unit_scale(x), dtype=qint8)


def inverse_of(operator: Operator, mask: QTensor) -> QTensor:
    """Return the mask that holds where another does not."""
    return _from_table(operator, mask, lambda steps: steps == 0, "eq")


def as_mask(operator: Operator, x: QTensor) -> QTensor:
    """Return where a tensor is not 0: masks are inputs, constants and comparisons alike."""
    if x.dtype is qint16:
        return inverse_of(operator, _step(operator, x, 0, "eq"))
    return _from_table(operator, x, lambda steps: steps != 0, "ne")


def _step(operator: Operator, x: QTensor, number: float, relation: str) -> QTensor:
    """Compare int16 steps with a number of steps: lines of two levels."""
    if relation in ("eq", "ne"):
        least, most = (_step(operator, x, number, each) for each in ("ge", "le"))
        kernel = Mul(multiplier=exactly(x.scale.device), out_dtype=qint8)
        equal = least.invoke(kernel, operator.row, least, most, scale=unit_scale(x), dtype=qint8)
        return equal if relation == "eq" else inverse_of(operator, equal)
    below = relation in ("lt", "le")  # whether it holds up to a border, or beyond
    border = math.floor(number) if relation in ("le", "gt") else math.ceil(number) - 1
    low, high = (int(below), int(not below)) if border >= qint16.min else (int(not below),) * 2
    lines = two_lines(left=(0, low), right=(0, high), border=min(border, qint16.max), device=x.scale.device)
    wide = x.invoke(lines, operator.row, x, scale=unit_scale(x), dtype=qint16)
    narrow = Rescale(multiplier=exactly(x.scale.device), out_dtype=qint8)
    return wide.invoke(narrow, operator.row, wide, scale=unit_scale(x), dtype=qint8)


def compared(operator: Operator, x: QTensor, number: float, relation: str) -> QTensor:
    """Return where a tensor of steps is in a relation to a real number."""
    if x.dtype is qint16:
        steps = operator.derived.get([x], lambda: number / float(x.scale), "steps", number)
        return _step(operator, x, steps, relation)

    def truths(steps: Tensor) -> Tensor:
        found: Tensor = getattr(torch, relation)(steps.double() * float(x.scale), number)
        return found

    return _from_table(operator, x, truths, relation, number)


def kept(operator: Operator, x: QTensor, mask: QTensor) -> QTensor:
    """Return x where a mask holds, 0 elsewhere."""
    kernel = Mul(multiplier=exactly(x.scale.device), out_dtype=x.dtype)
    return x.invoke(kernel, operator.row, mask, x, scale=x.scale, dtype=x.dtype)


def joined(operator: Operator, x: QTensor, y: QTensor) -> QTensor:
    """Add two tensors of one scale, of which one is 0 everywhere."""
    one, zero = exactly(x.scale.device).output_scale, exactly(x.scale.device).accu_right_shift
    kernel = Add(
        input_left_shift=zero,
        residual=ResidualScale(sumin_scale=one, sumin_left_shift=zero),
        multiplier=exactly(x.scale.device),
        out_dtype=x.dtype,
    )
    return x.invoke(kernel, operator.row, x, y, scale=x.scale, dtype=x.dtype)


def chosen(operator: Operator, mask: QTensor, x: QTensor, y: QTensor) -> QTensor:
    """Return x where a mask of 0 and 1 holds, y elsewhere; both have one scale and type."""
    return joined(operator, kept(operator, x, mask), kept(operator, y, inverse_of(operator, mask)))


def level(operator: Operator, mask: QTensor, step: int, out: Output) -> QTensor:
    """Return a step where a mask of 0 and 1 holds, 0 elsewhere."""
    device = mask.scale.device
    if out.dtype is qint8:
        table: Kernel = Lut8(table=(torch.arange(-128, 128, device=device) != 0).to(torch.int8) * step)
        return mask.invoke(table, operator.row, mask, scale=out.scale, dtype=qint8)
    widen = Rescale(multiplier=exactly(device), out_dtype=qint16)
    wide = mask.invoke(widen, operator.row, mask, scale=mask.scale, dtype=qint16)
    lines = two_lines(left=(0, 0), right=(0, step), border=0, device=device)
    return wide.invoke(lines, operator.row, wide, scale=out.scale, dtype=qint16)

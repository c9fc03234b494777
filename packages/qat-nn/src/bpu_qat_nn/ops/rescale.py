"""Bringing steps to another scale or type: rescale, and widening to int16 and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bpu_kernels.dtypes import qint8, qint16
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.kernel import Kernel
from bpu_kernels.multiplier import choose_rescale
from bpu_kernels.ops.elementwise import Rescale
from bpu_kernels.ops.lut import Lut8

from ..capture.captured_tensor import uncaptured
from ..op import Operator, Output
from ..qtensor import QTensor

__all__ = ["as_multiplier", "int32_fields", "rescale", "through_int16", "unit_scale", "widen"]

_WIDENING = 256
"""int8 becomes int16 by this factor, exactly; the scale shrinks by it."""


def int32_fields(parameters: Any) -> dict[str, Tensor]:
    """Return the fields of a dataclass of integer tensors, or of arrays, as int32 tensors."""
    return {name: torch.as_tensor(value).to(torch.int32) for name, value in vars(parameters).items()}


def as_multiplier(chosen: Multiplier) -> Multiplier:
    """Return a chosen multiplier in the type that kernels store."""
    return Multiplier(**int32_fields(chosen))


def rescale(operator: Operator, x: QTensor, out: Output) -> QTensor:
    """Bring steps to another scale and type; nothing runs where both are the same.

    Bernoulli2's own rescale floors after a coarse correction (17), so there a table is used, which rounds half up.
    """

    def build() -> Kernel | None:
        if x.dtype is out.dtype and float(x.scale) == float(out.scale):
            return None
        if not operator.row.rounds:
            ratio = float(x.scale) / float(out.scale)
            steps = torch.floor(torch.arange(-128, 128, dtype=torch.float64) * ratio + 0.5)
            return Lut8(table=steps.clamp(qint8.min, qint8.max).to(torch.int8).to(x.scale.device))
        multiplier = choose_rescale(x.scale.double() / out.scale.double(), operator.row, xp=torch)
        return Rescale(multiplier=as_multiplier(multiplier), out_dtype=out.dtype)

    kernel = operator.derived.get([x, out], build, "rescale")
    return x if kernel is None else x.invoke(kernel, operator.row, x, scale=out.scale, dtype=out.dtype)


def unit_scale(x: QTensor) -> Tensor:
    """Return the scale 1 of masks and indices, where a tensor's own scale is."""
    with uncaptured():
        return torch.ones_like(x.scale)


def widen(operator: Operator, x: QTensor) -> QTensor:
    """Turn int8 into int16 with 8 fractional bits, exactly; int16 stays."""
    if x.dtype is qint16:
        return x
    scale = operator.derived.get([x], lambda: x.scale / _WIDENING, "widen")
    return rescale(operator, x, Output(scale, qint16))


def through_int16(operator: Operator, out: Output) -> Output:
    """Return the int16 Output whose rescale to the int8 one drops 8 bits."""
    return Output(operator.derived.get([out], lambda: out.scale / _WIDENING, "narrow"), qint16)

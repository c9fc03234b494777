"""Largest and smallest value along axes, as pooling over a row."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bpu_fx_fusion import Amax, Amin
from bpu_kernels.dtypes import QuantDType, qint8, qint16
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.kernel import Kernel
from bpu_kernels.march import MarchRow
from bpu_kernels.multiplier import ResidualScale
from bpu_kernels.ops.elementwise import Add, Rescale
from bpu_kernels.ops.lut import Lut8
from bpu_kernels.ops.pool import MaxPool2d

from ..op import Operator, OpRow, Output, type_problems
from ..qat_module import QATModule
from ..qtensor import QTensor
from ..quantized_module import QuantizedModule
from ..segment_table import affine_table
from .rows import axes_of, back_from_rows, rows

__all__ = ["ROWS", "QATExtremum", "largest"]

_LONGEST = 256
"""A row is pooled by so many elements at a time."""


def largest(operator: Operator, x: QTensor, dim: Any, *, keepdim: bool) -> QTensor:
    """Return the largest int8 step along axes; every row is a map of one line, which is pooled."""
    flat: Any = rows(x, dim)
    lead, length = [int(n) for n in flat.shape[:-1]], int(flat.shape[-1])
    y: Any = flat.reshape([lead[0], 1, prod(lead[1:]), length])
    while length > 1:
        window = (1, min(length, _LONGEST))
        kernel = MaxPool2d(kernel=window, stride=window, pad=(0, 0), ceil_mode=True)
        y = y.invoke(kernel, operator.row, y, scale=y.scale, dtype=y.dtype)
        length = -(-length // window[1])
    return back_from_rows(y.reshape([*lead, 1]), x, dim, keepdim=keepdim)


def largest_of_16_bits(operator: Operator, x: QTensor, dim: Any) -> QTensor:
    """Return the largest int16 step along axes, which are kept: of the upper bytes first, then of what is above that.

    x = 256 * upper + lower + 128 with the upper in -128..127. Where the upper is the largest, the lower is in -128..127
    as well; elsewhere it is less than -128, and saturates.
    """
    upper = _as_int8(operator, _added(operator, x, x, plus=1, shift=9))
    top = largest(operator, upper, dim, keepdim=True)
    wide = Rescale(multiplier=_by(x, scale=256), out_dtype=qint16)
    base = top.invoke(wide, operator.row, top, scale=x.scale, dtype=qint16)
    base = base.invoke(affine_table(1.0, 128.0, x.scale.device), operator.row, base, scale=x.scale, dtype=qint16)
    lower = _as_int8(operator, _added(operator, x, base, plus=-1))
    return _added(operator, largest(operator, lower, dim, keepdim=True), base, plus=1)


def _by(x: QTensor, *, scale: int = 1, shift: int = 0) -> Multiplier:
    zero, one, first = (torch.full((1,), n, dtype=torch.int32, device=x.scale.device) for n in (0, scale, shift))
    return Multiplier(accu_right_shift=first, output_scale=one, output_right_shift=zero)


def _added(operator: Operator, x: QTensor, y: QTensor, *, plus: int, shift: int = 0) -> QTensor:
    """Return (x + y) or (x - y) of int16, divided by 2**shift and floored."""
    exactly = _by(x)
    residual = ResidualScale(sumin_scale=exactly.output_scale * plus, sumin_left_shift=exactly.accu_right_shift)
    kernel = Add(
        input_left_shift=exactly.accu_right_shift,
        residual=residual,
        multiplier=_by(x, shift=shift),
        out_dtype=qint16,
    )
    return x.invoke(kernel, operator.row, x, y, scale=y.scale, dtype=qint16)


def _as_int8(operator: Operator, x: QTensor) -> QTensor:
    """Saturate."""
    return x.invoke(Rescale(multiplier=_by(x), out_dtype=qint8), operator.row, x, scale=x.scale, dtype=qint8)


class ExtremumOperator(Operator):
    """``amax`` or ``amin``; integers are only chosen, so the scale stays."""

    own_scale: ClassVar[bool] = False
    keeps_grid: ClassVar[bool] = True
    config: ClassVar[tuple[str, ...]] = ("dim", "keepdim")
    smallest: bool

    dim: Any
    keepdim: bool

    def configure(self, source: Any) -> None:
        """Note the axes, and which end it is."""
        super().configure(source)
        self.smallest = source.smallest if isinstance(source, Operator) else type(source) is Amin  # type: ignore[attr-defined]

    def real(self, *inputs: Tensor) -> Tensor:
        """Choose."""
        choose = torch.amin if self.smallest else torch.amax
        return choose(inputs[0], self.dim, keepdim=self.keepdim)

    def steps(self, out: Output, *inputs: QTensor) -> QTensor:
        """Choose; the smallest is the largest of the negative."""
        x = self._mirrored(inputs[0]) if self.smallest else inputs[0]
        if x.dtype is qint8:
            y = largest(self, x, self.dim, keepdim=self.keepdim)
        else:
            kept: Any = largest_of_16_bits(self, x, self.dim)
            y = kept if self.keepdim else kept.squeeze(axes_of(self.dim, len(x.shape)))
        return self._mirrored(y) if self.smallest else y

    def _mirrored(self, x: QTensor) -> QTensor:
        """Return -1 - x, which unlike -x exists for every step."""
        device = x.scale.device
        kernel: Kernel = affine_table(-1.0, -1.0, device)
        if x.dtype is qint8:
            kernel = Lut8(table=torch.arange(127, -129, -1, device=device).to(torch.int8))
        return x.invoke(kernel, self.row, x, scale=x.scale, dtype=x.dtype)

    def extra_repr(self) -> str:
        """Axes."""
        return f"dim={self.dim}, keepdim={self.keepdim}"


class QuantizedExtremum(ExtremumOperator, QuantizedModule):
    """Largest or smallest of integers."""


class QATExtremum(ExtremumOperator, QATModule):
    """Largest or smallest under quantization-aware training."""

    quantized = QuantizedExtremum

    @classmethod
    def limits(
        cls, module: nn.Module, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """Types of the march, which must regroup axes."""
        found = type_problems(inputs, row.activations)
        return found if row.moves_freely else [*found, "regrouping the axes"]


ROWS = (
    OpRow(
        name="amax",
        floats=(Amax, Amin),
        qat=QATExtremum,
        kernels=("max_pool2d", "lut8", "lut16", "add", "rescale"),
        note="The largest or smallest value along axes, by pooling each row; of 16 bits, byte by byte.",
    ),
)

"""Largest and smallest value along axes, as pooling over a row."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bpu_fx_fusion import Amax, Amin
from bpu_kernels.dtypes import QuantDType, qint8
from bpu_kernels.march import MarchRow
from bpu_kernels.ops.lut import Lut8
from bpu_kernels.ops.pool import MaxPool2d

from ..errors import InputError
from ..op import Operator, OpRow, Output, type_problems
from ..qat_module import QATModule
from ..qtensor import QTensor
from ..quantized_module import QuantizedModule
from .rows import back_from_rows, rows

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
        x = inputs[0]
        if x.dtype is not qint8:
            raise InputError(f"{self.label}: amax and amin take int8; use an 8-bit activation qconfig before it")
        if self.smallest:
            return self._mirrored(largest(self, self._mirrored(x), self.dim, keepdim=self.keepdim))
        return largest(self, x, self.dim, keepdim=self.keepdim)

    def _mirrored(self, x: QTensor) -> QTensor:
        """Return -1 - x, which unlike -x exists for every step."""
        kernel = Lut8(table=torch.arange(127, -129, -1, device=x.scale.device).to(torch.int8))
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
        """int8; marches that can regroup axes."""
        found = type_problems(inputs, [qint8])
        return found if row.moves_freely else [*found, "regrouping the axes"]


ROWS = (
    OpRow(
        name="amax",
        floats=(Amax, Amin),
        qat=QATExtremum,
        kernels=("max_pool2d", "lut8"),
        note="The largest or smallest value along axes, by pooling each row.",
    ),
)

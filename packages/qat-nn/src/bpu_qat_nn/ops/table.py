"""Functions of one variable by lookup: 256 entries for int8, a segment table for int16."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from bpu_fx_fusion import (
    Acos,
    Acosh,
    Asin,
    Asinh,
    Atan,
    Atanh,
    Ceil,
    Cos,
    Cosh,
    Erf,
    Exp,
    Floor,
    HardLog,
    Pow,
    Reciprocal,
    Rsqrt,
    Sin,
    Sinh,
    Sqrt,
    Tan,
)
from bpu_kernels.dtypes import QuantDType, qint8, qint16
from bpu_kernels.kernel import Kernel
from bpu_kernels.march import MarchRow
from bpu_kernels.ops.lut import Lut8

from ..derived import settings_of
from ..op import Operator, OpRow, Output, out_of_place
from ..qat_module import QATModule
from ..qtensor import QTensor
from ..quantized_module import QuantizedModule
from .rescale import rescale, through_int16, widen
from .segment_table import segment_table

__all__ = ["ROWS", "look_up"]

Function = Callable[[Tensor], Tensor]


def look_up(operator: Operator, function: Function, x: QTensor, out: Output, *key: object) -> QTensor:
    """Apply a real function to steps; the table is built in float64 on the CPU, so every device has the same.

    int8 to int8 is a table of all values. Otherwise the function is a segment table of int16: int8 input is widened
    for it, int8 output narrowed behind it.

    Args:
        operator: keeps the tables.
        function: elementwise, accepts float64.
        x: int8 or int16.
        out: scale and type of the result.
        key: what else the function depends on.
    """
    if x.dtype is qint8 and out.dtype is qint8:
        table = operator.derived.get([x, out], lambda: _table8(function, x, out), *key)
        return x.invoke(table, operator.row, x, scale=out.scale, dtype=out.dtype)
    x, wide = widen(operator, x), out if out.dtype is qint16 else through_int16(operator, out)

    def build() -> Kernel:
        return segment_table(function, float(x.scale), float(wide.scale), x.scale.device)

    kernel = operator.derived.get([x, wide], build, "segments", *key)
    return rescale(operator, x.invoke(kernel, operator.row, x, scale=wide.scale, dtype=qint16), out)


def _table8(function: Function, x: QTensor, out: Output) -> Lut8:
    reals = torch.arange(qint8.min, qint8.max + 1, dtype=torch.float64) * float(x.scale)
    steps = torch.floor(function(reals) / float(out.scale) + 0.5).clamp(qint8.min, qint8.max)
    return Lut8(table=torch.nan_to_num(steps).to(torch.int8).to(x.scale.device))


class TableOperator(Operator):
    """An elementwise function; the float module itself is its definition."""

    function: nn.Module
    own_scale: ClassVar[bool] = True

    def configure(self, source: nn.Module) -> None:
        """Keep the float module, or what the QAT module kept."""
        self.function = out_of_place(getattr(source, "function", source))

    def real(self, *inputs: Tensor) -> Tensor:
        """Evaluate the function."""
        y: Tensor = self.function(inputs[0])
        return y

    def steps(self, out: Output, *inputs: QTensor) -> QTensor:
        """Look up."""
        return look_up(self, self.function, inputs[0], out, *settings_of(self.function))

    def _get_name(self) -> str:
        return type(self.function).__name__ if "function" in self.__dict__.get("_modules", {}) else type(self).__name__


class QuantizedTable(TableOperator, QuantizedModule):
    """A function of integers by table."""


class QATTable(TableOperator, QATModule):
    """A function of one variable under quantization-aware training."""

    quantized = QuantizedTable

    @classmethod
    def limits(
        cls, module: nn.Module, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """int8, and int16 where the march has segment tables."""
        found = super().limits(module, row, dtype, inputs)
        if dtype not in row.activations:
            found.append(f"output type {dtype} (allowed: {', '.join(map(str, row.activations))})")
        if type(module) in (Ceil, Floor) and qint16 in (dtype, *inputs):
            found.append("steps in a table of 16 bits, which interpolates between its entries (allowed: qint8)")
        return found


FUNCTIONS: tuple[type[nn.Module], ...] = (
    nn.Sigmoid,
    nn.Tanh,
    nn.SiLU,
    nn.GELU,
    nn.ELU,
    nn.LeakyReLU,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Mish,
    nn.SELU,
    nn.CELU,
    nn.Softplus,
    nn.Softsign,
    nn.LogSigmoid,
    *(
        Acos,
        Acosh,
        Asin,
        Asinh,
        Atan,
        Atanh,
        Ceil,
        Cos,
        Cosh,
        Erf,
        Exp,
        Floor,
        HardLog,
        Pow,
        Reciprocal,
        Rsqrt,
        Sin,
        Sinh,
        Sqrt,
        Tan,
    ),
)
"""Float modules that are functions of one variable."""

ROWS = (
    OpRow(
        name="table",
        floats=FUNCTIONS,
        qat=QATTable,
        kernels=("lut8", "lut16"),
        note="Any of these functions, by lookup; the table is rounded half up from float64.",
    ),
)

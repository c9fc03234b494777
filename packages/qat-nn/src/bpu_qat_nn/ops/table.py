"""Functions of one variable by lookup: 256 entries for int8, a segment table for int16."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from bpu_fx_fusion import Exp
from bpu_kernels.dtypes import QuantDType, qint8, qint16
from bpu_kernels.kernel import Kernel
from bpu_kernels.march import MarchRow
from bpu_kernels.ops.lut import Lut8

from ..op import Operator, OpRow, Output, QATModule, QuantizedModule
from ..qtensor import QTensor
from ..segment_table import segment_table

__all__ = ["ROWS", "look_up"]

Function = Callable[[Tensor], Tensor]


def look_up(operator: Operator, function: Function, x: QTensor, out: Output, *key: object) -> QTensor:
    """Apply a real function to steps; the table is built in float64 on the CPU, so every device has the same.

    Args:
        operator: keeps the tables.
        function: elementwise, accepts float64.
        x: int8 or int16.
        out: scale and type of the result; int16 input gives int16 output, int8 gives int8.
        key: what else the function depends on.
    """

    def build() -> Kernel:
        x_scale, scale = float(x.scale), float(out.scale)
        if x.dtype is qint16:
            return segment_table(function, x_scale, scale, x.scale.device)
        reals = torch.arange(-128, 128, dtype=torch.float64) * x_scale
        steps = torch.floor(function(reals) / scale + 0.5).clamp(qint8.min, qint8.max)
        return Lut8(table=torch.nan_to_num(steps).to(torch.int8).to(x.scale.device))

    kernel = operator.derived.get([x.scale, out.scale], build, x.dtype, *key)
    return x.invoke(kernel, operator.row, x, scale=out.scale, dtype=out.dtype)


class TableOperator(Operator):
    """An elementwise function; the float module itself is its definition."""

    function: nn.Module
    own_scale: ClassVar[bool] = True

    def configure(self, source: nn.Module) -> None:
        """Keep the float module, or what the QAT module kept."""
        self.function = getattr(source, "function", source)

    def real(self, *inputs: Tensor) -> Tensor:
        """Evaluate the function."""
        y: Tensor = self.function(inputs[0])
        return y

    def steps(self, out: Output, *inputs: QTensor) -> QTensor:
        """Look up."""
        return look_up(self, self.function, inputs[0], out)

    def _get_name(self) -> str:
        return type(self.function).__name__ if "function" in self.__dict__.get("_modules", {}) else type(self).__name__


class QuantizedTable(TableOperator, QuantizedModule):
    """A function of integers by table."""


class QATTable(TableOperator, QATModule):
    """A function of one variable under quantization-aware training."""

    quantized = QuantizedTable

    @classmethod
    def limits(cls, module: nn.Module, row: MarchRow, dtype: QuantDType) -> list[str]:
        """int8, and int16 where the march has segment tables."""
        return [] if dtype in row.activations else [f"output type {dtype} (allowed: {row.activations})"]


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
    Exp,
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

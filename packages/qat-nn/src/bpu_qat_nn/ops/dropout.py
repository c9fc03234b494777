"""Dropout: scales and zeroes in training, nothing afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from bpu_fx_fusion import DropBlock, DropPath
from bpu_kernels.dtypes import QuantDType
from bpu_kernels.march import MarchRow

from ..op import Operator, OpRow, Output, out_of_place
from ..qat_module import QATModule
from ..qtensor import QTensor
from ..quantized_module import QuantizedModule

__all__ = ["ROWS", "QuantizedDropout"]


class QuantizedDropout(Operator, nn.Identity):
    """Nothing: what dropout is in a converted model."""

    def __init__(self, source: QATModule) -> None:
        nn.Module.__init__(self)
        self.eval()

    def _get_name(self) -> str:
        return "Identity"


class QATDropout(QATModule):
    """Dropout under quantization-aware training; its output in training is off the grid, as ``1 / (1 - p)`` is."""

    own_scale: ClassVar[bool] = False
    quantized: ClassVar[type[QuantizedModule]] = QuantizedDropout  # type: ignore[assignment]
    dropout: Any

    def configure(self, source: Any) -> None:
        """Keep the float module."""
        self.dropout = out_of_place(source)

    @classmethod
    def limits(
        cls, module: nn.Module, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """Nothing is refused: nothing will run."""
        return []

    def forward(self, *inputs: QTensor) -> QTensor:
        """Drop in training, pass through otherwise."""
        self.expect_quantized(inputs)
        x = inputs[0]
        if not (self.dropout.training and self.dropout.p):
            return x
        return QTensor(self.real(x.dequantize()), x.scale, None, x.dtype, x.per_channel_axis, on_grid=False)

    def real(self, *inputs: Tensor) -> Tensor:
        """Apply the float module."""
        y: Tensor = self.dropout(inputs[0])
        return y

    def steps(self, out: Output, *inputs: QTensor) -> QTensor:
        """Pass through."""
        return inputs[0]


ROWS = (
    OpRow(
        name="Dropout",
        floats=(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, DropPath, DropBlock),
        qat=QATDropout,
        kernels=(),
    ),
)

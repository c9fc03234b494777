"""Adaptive maximum pooling: bins of one length are a window, others are cut out, pooled and joined, axis by axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from bpu_kernels.dtypes import QuantDType, qint8
from bpu_kernels.march import MarchRow
from bpu_kernels.ops.concat import Concat
from bpu_kernels.ops.pool import MaxPool2d

from ...op import Operator, OpRow, Output, type_problems
from ...qat_module import QATModule
from ...qtensor import QTensor
from ...quantized_module import QuantizedModule
from .bins import bins, regular

__all__ = ["ROWS"]


class AdaptiveMaxPoolOperator(Operator):
    """Maximum to a given size; integers are only chosen, so the scale stays."""

    axes: ClassVar[int | None] = 4
    own_scale: ClassVar[bool] = False
    keeps_grid: ClassVar[bool] = True
    config: ClassVar[tuple[str, ...]] = ("output_size",)

    output_size: Any

    def real(self, *inputs: Tensor) -> Tensor:
        """Pool."""
        y: Tensor = F.adaptive_max_pool2d(inputs[0], self.output_size)
        return y

    def steps(self, out: Output, *inputs: QTensor) -> QTensor:
        """Pool along height, then along width."""
        x, size = inputs[0], self.output_size
        for axis, wanted in zip((2, 3), (size, size) if isinstance(size, int) else size, strict=True):
            if wanted is not None and wanted != int(x.shape[axis]):
                x = self._along(axis, bins(int(x.shape[axis]), wanted), x)
        return x

    def _along(self, axis: int, found: list[tuple[int, int]], x: Any) -> QTensor:
        alike = regular(found)
        if alike is not None:
            return self._pool(axis, *alike, x)
        parts = [self._pool(axis, end - begin, 1, x.narrow(axis, begin, end - begin)) for begin, end in found]
        joined: QTensor = x.invoke(Concat(axis=axis), self.row, *parts, scale=x.scale, dtype=x.dtype)
        return joined

    def _pool(self, axis: int, length: int, distance: int, x: QTensor) -> QTensor:
        window, stride = ((length, 1), (distance, 1)) if axis == 2 else ((1, length), (1, distance))
        return x.invoke(MaxPool2d(kernel=window, stride=stride), self.row, x, scale=x.scale, dtype=x.dtype)

    def extra_repr(self) -> str:
        """Size."""
        return f"output_size={self.output_size}"


class QuantizedAdaptiveMaxPool2d(AdaptiveMaxPoolOperator, QuantizedModule):
    """Adaptive maximum pooling of integers."""


class QATAdaptiveMaxPool2d(AdaptiveMaxPoolOperator, QATModule):
    """Adaptive maximum pooling under quantization-aware training."""

    quantized = QuantizedAdaptiveMaxPool2d

    @classmethod
    def limits(
        cls, module: Any, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """int8; no indices."""
        found = ["return_indices=True"] if module.return_indices else []
        return found + type_problems(inputs, [qint8])


ROWS = (
    OpRow(
        name="AdaptiveMaxPool2d",
        floats=(nn.AdaptiveMaxPool2d,),
        qat=QATAdaptiveMaxPool2d,
        kernels=("max_pool2d", "slice", "concat"),
        note="Any output size: bins of different lengths are cut out, pooled and joined.",
    ),
)

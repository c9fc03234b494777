"""Adaptive average pooling: bins of one length are a window, others are cut out, averaged and joined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from bpu_kernels.dtypes import QuantDType
from bpu_kernels.march import MarchRow
from bpu_kernels.ops.concat import Concat

from ...op import Operator, OpRow, Output
from ...qat_module import QATModule
from ...qtensor import QTensor
from ...quantized_module import QuantizedModule
from .average import average, int8_problems
from .bins import bins, regular

__all__ = ["ROWS"]


class AdaptiveAvgPoolOperator(Operator):
    """Average to a given size; every bin is rounded once."""

    axes: ClassVar[int | None] = 4
    config: ClassVar[tuple[str, ...]] = ("output_size",)

    output_size: Any

    def real(self, *inputs: Tensor) -> Tensor:
        """Pool."""
        return F.adaptive_avg_pool2d(inputs[0], self.output_size)

    def steps(self, out: Output, *inputs: QTensor) -> QTensor:
        """Pool with the equivalent window, or bin by bin."""
        size = self.output_size
        wanted = (size, size) if isinstance(size, int) else tuple(size)
        lengths = [int(n) for n in inputs[0].shape[2:]]
        rows, columns = (bins(n, n if m is None else m) for n, m in zip(lengths, wanted, strict=True))
        return self._averaged(inputs[0], out, rows, columns)

    def _averaged(self, x: Any, out: Output, rows: list[tuple[int, int]], columns: list[tuple[int, int]]) -> QTensor:
        high, wide = regular(rows), regular(columns)
        if high is not None and wide is not None:
            window, stride = zip(high, wide, strict=True)
            return average(self, x, out, window=window, divisor=window[0] * window[1], stride=stride)
        axis, found = (2, rows) if high is None else (3, columns)
        parts = []
        for begin, end in found:
            one = [(0, end - begin)]
            strip = x.narrow(axis, begin, end - begin)
            parts.append(self._averaged(strip, out, *((one, columns) if axis == 2 else (rows, one))))
        joined: QTensor = x.invoke(Concat(axis=axis), self.row, *parts, scale=out.scale, dtype=out.dtype)
        return joined

    def extra_repr(self) -> str:
        """Size."""
        return f"output_size={self.output_size}"


class QuantizedAdaptiveAvgPool2d(AdaptiveAvgPoolOperator, QuantizedModule):
    """Adaptive average pooling of integers."""


class QATAdaptiveAvgPool2d(AdaptiveAvgPoolOperator, QATModule):
    """Adaptive average pooling under quantization-aware training."""

    quantized = QuantizedAdaptiveAvgPool2d

    @classmethod
    def limits(
        cls, module: Any, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """int8 only."""
        return int8_problems(dtype, inputs)


ROWS = (
    OpRow(
        name="AdaptiveAvgPool2d",
        floats=(nn.AdaptiveAvgPool2d,),
        qat=QATAdaptiveAvgPool2d,
        kernels=("avg_pool2d", "global_avg_pool2d", "slice", "concat", "rescale"),
        note="Any output size: bins of different lengths are cut out, averaged and joined.",
    ),
)

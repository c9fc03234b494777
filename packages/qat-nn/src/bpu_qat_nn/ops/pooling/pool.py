"""Pooling with a window of one size: average and maximum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from bpu_kernels.dtypes import QuantDType, qint8, qint16
from bpu_kernels.march import MarchRow
from bpu_kernels.ops.pool import MaxPool2d

from ...errors import InputError
from ...op import Operator, OpRow, Output, type_problems
from ...qat_module import QATModule
from ...qtensor import QTensor
from ...quantized_module import QuantizedModule
from .average import average, int8_problems, pair
from .uncounted import average_of_counted, counted

__all__ = ["ROWS"]


class AvgPoolOperator(Operator):
    """Average pooling with counted padding."""

    axes: ClassVar[int | None] = 4

    config: ClassVar[tuple[str, ...]] = (
        *("kernel_size", "stride", "padding", "ceil_mode", "divisor_override", "count_include_pad"),
    )

    kernel_size: Any
    stride: Any
    padding: Any
    ceil_mode: bool
    divisor_override: int | None
    count_include_pad: bool

    def real(self, *inputs: Tensor) -> Tensor:
        """Pool."""
        return F.avg_pool2d(
            inputs[0],
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def _counts(self, x: Any) -> tuple[list[int], list[int]] | None:
        """Return how many elements the windows count; None where all count the same."""
        window, stride, pad = pair(self.kernel_size), pair(self.stride), pair(self.padding)
        if self.divisor_override:
            return None
        high, wide = (
            counted(int(n), k, s, p, ceil_mode=self.ceil_mode, includes_pad=self.count_include_pad)
            for n, k, s, p in zip(x.shape[2:], window, stride, pad, strict=True)
        )
        return None if set(high) == {window[0]} and set(wide) == {window[1]} else (high, wide)

    def steps(self, out: Output, *inputs: QTensor) -> QTensor:
        """Sum and requantize."""
        window, stride, pad = pair(self.kernel_size), pair(self.stride), pair(self.padding)
        counts = self._counts(inputs[0])
        if counts is not None and qint16 not in self.row.activations:
            raise InputError(
                f"{self.label}: windows at the border of a {tuple(inputs[0].shape[2:])} map count fewer elements, "
                f"which {self.row.march} cannot do; give divisor_override, or ceil_mode=False"
            )
        if counts is not None:
            return average_of_counted(self, inputs[0], out, counts, window=window, stride=stride, pad=pad)
        return average(
            self,
            inputs[0],
            out,
            window=window,
            divisor=self.divisor_override or window[0] * window[1],
            stride=stride,
            pad=pad,
            ceil_mode=self.ceil_mode,
        )

    def extra_repr(self) -> str:
        """Window."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class QuantizedAvgPool2d(AvgPoolOperator, QuantizedModule):
    """Average pooling of integers."""


class QATAvgPool2d(AvgPoolOperator, QATModule):
    """Average pooling under quantization-aware training."""

    quantized = QuantizedAvgPool2d

    @classmethod
    def limits(
        cls, module: Any, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """Window and stride of the march; where there is no int16, padding must count."""
        window, pad, found = pair(module.kernel_size), pair(module.padding), []
        taps = window[0] * window[1]
        if any(k not in row.avg_pool_kernel for k in window) or (taps not in row.avg_pool_taps and taps != 1):
            found.append(f"kernel {window} (allowed: {row.avg_pool_kernel} each, {row.avg_pool_taps} elements)")
        if any(s not in row.pool_stride for s in pair(module.stride)):
            found.append(f"stride {module.stride} (allowed: {row.pool_stride})")
        if max(pad) and not module.count_include_pad and qint16 not in row.activations:
            found.append("count_include_pad=False with padding, since it counts padding")
        return found + int8_problems(dtype, inputs)


class MaxPoolOperator(Operator):
    """Maximum of a window; integers are only chosen, so the scale stays."""

    axes: ClassVar[int | None] = 4

    own_scale: ClassVar[bool] = False
    keeps_grid: ClassVar[bool] = True
    config: ClassVar[tuple[str, ...]] = ("kernel_size", "stride", "padding", "ceil_mode")

    kernel_size: Any
    stride: Any
    padding: Any
    ceil_mode: bool

    def real(self, *inputs: Tensor) -> Tensor:
        """Pool."""
        return F.max_pool2d(inputs[0], self.kernel_size, self.stride, self.padding, 1, self.ceil_mode)

    def steps(self, out: Output, *inputs: QTensor) -> QTensor:
        """Pool."""
        kernel = MaxPool2d(
            kernel=pair(self.kernel_size), stride=pair(self.stride), pad=pair(self.padding), ceil_mode=self.ceil_mode
        )
        return inputs[0].invoke(kernel, self.row, inputs[0], scale=out.scale, dtype=out.dtype)

    def extra_repr(self) -> str:
        """Window."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class QuantizedMaxPool2d(MaxPoolOperator, QuantizedModule):
    """Maximum pooling of integers."""


class QATMaxPool2d(MaxPoolOperator, QATModule):
    """Maximum pooling under quantization-aware training."""

    quantized = QuantizedMaxPool2d

    @classmethod
    def limits(
        cls, module: Any, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """Window and stride of the march; no dilation, no indices; int8."""
        found = []
        if any(k not in row.max_pool_kernel for k in pair(module.kernel_size)):
            found.append(f"kernel {module.kernel_size} (allowed: {row.max_pool_kernel})")
        if any(s not in row.pool_stride for s in pair(module.stride)):
            found.append(f"stride {module.stride} (allowed: {row.pool_stride})")
        if pair(module.dilation) != (1, 1):
            found.append(f"dilation {module.dilation} (allowed: 1)")
        if module.return_indices:
            found.append("return_indices=True")
        return found + type_problems(inputs, [qint8])


ROWS = (
    OpRow(
        name="AvgPool2d",
        floats=(nn.AvgPool2d,),
        qat=QATAvgPool2d,
        kernels=("avg_pool2d", "global_avg_pool2d", "slice", "rescale", "pad", "conv2d", "mul"),
        note="Windows that leave padding out, or are cut short by ceil_mode, are sums of 16 bits times a constant map.",
    ),
    OpRow(name="MaxPool2d", floats=(nn.MaxPool2d,), qat=QATMaxPool2d, kernels=("max_pool2d",)),
)

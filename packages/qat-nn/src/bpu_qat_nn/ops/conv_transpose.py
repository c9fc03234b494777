"""Transposed convolution, alone or with BatchNorm, addition and ReLU in one operator."""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from bpu_kernels.dtypes import QuantDType, qint8
from bpu_kernels.kernel import Kernel
from bpu_kernels.march import MarchRow
from bpu_kernels.ops.conv_transpose import ConvTranspose2d, conv_transpose2d_limits

from .conv import layer_of, weighted_rows
from .weighted import WeightedOperator, WeightedQAT, WeightedQuantized

__all__ = ["ROWS"]


class ConvTransposeOperator(WeightedOperator):
    """``relu(conv_transpose(x, w) + b + residual)``; the layer's own weight layout is I, O / groups, kernel."""

    config: ClassVar[tuple[str, ...]] = (
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "output_padding",
        "dilation",
        "groups",
    )

    stride: tuple[int, int]
    padding: tuple[int, int]
    output_padding: tuple[int, int]
    groups: int

    def canonical(self, weight: Tensor) -> Tensor:
        """(I, O / g, k, k) -> (O, I / g, k, k)."""
        inputs, outputs, *kernel = weight.shape
        split = weight.reshape(self.groups, inputs // self.groups, outputs, *kernel)
        return split.transpose(1, 2).reshape(self.groups * outputs, inputs // self.groups, *kernel)

    def restored(self, weight: Tensor) -> Tensor:
        """(O, I / g, k, k) -> (I, O / g, k, k)."""
        outputs, inputs, *kernel = weight.shape
        split = weight.reshape(self.groups, outputs // self.groups, inputs, *kernel)
        return split.transpose(1, 2).reshape(self.groups * inputs, outputs // self.groups, *kernel)

    def linear_map(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Scatter."""
        return F.conv_transpose2d(x, weight, bias, self.stride, self.padding, self.output_padding, self.groups)

    def kernel(self, weight: Tensor, **parameters: Any) -> Kernel:
        """Weights become I, kernel, O / groups."""
        parameters.pop("out_dtype")
        return ConvTranspose2d(
            weight=self.restored(weight).movedim(1, -1),
            stride=tuple(self.stride),
            pad=tuple(self.padding),
            output_padding=tuple(self.output_padding),
            groups=self.groups,
            **parameters,
        )


class QuantizedConvTranspose2d(ConvTransposeOperator, WeightedQuantized):
    """Transposed convolution of integers."""


class QATConvTranspose2d(ConvTransposeOperator, WeightedQAT):
    """Transposed convolution under quantization-aware training."""

    quantized = QuantizedConvTranspose2d

    @classmethod
    def limits(cls, module: nn.Module, row: MarchRow, dtype: QuantDType) -> list[str]:
        """Hold kernel, stride, padding, groups and types to the march's row."""
        layer = layer_of(module)
        if dtype is not qint8:
            return [f"output type {dtype} (allowed: {qint8}; a qconfig without activation part means qint32)"]
        return conv_transpose2d_limits(
            row,
            kernel=layer.kernel_size,
            stride=layer.stride,
            pad=layer.padding,
            output_padding=layer.output_padding,
            dilation=layer.dilation,
            groups=layer.groups,
            x=qint8,
        )


ROWS = tuple(weighted_rows(nn.ConvTranspose2d, QATConvTranspose2d, QuantizedConvTranspose2d, "conv_transpose2d"))
globals().update(
    {cls.__name__: cls for row in ROWS for cls in (row.qat, row.qat.quantized)}
)  # so that pickles find them

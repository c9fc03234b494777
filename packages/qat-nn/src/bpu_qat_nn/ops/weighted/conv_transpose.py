"""Transposed convolution, alone or with BatchNorm, addition and ReLU in one operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_kernels.dtypes import QuantDType, qint8
from bpu_kernels.kernel import Kernel
from bpu_kernels.march import MarchRow
from bpu_kernels.ops.conv_transpose import ConvTranspose2d, conv_transpose2d_limits, padding_problems

from ...op import Output
from ...qtensor import QTensor
from .conv import layer_of
from .family import forms_of, fused_problems, weighted_rows
from .layer import WeightedQAT, WeightedQuantized
from .operator import WeightedOperator

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
    fixed: ClassVar[tuple[str, ...]] = ("kernel_size", "groups", "dilation")

    axes: ClassVar[int | None] = 4
    gives_int16: ClassVar[bool] = False

    kernel_size: tuple[int, int]
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

    def gradients(
        self, gradient: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Convolution with the weight, and with the input."""
        more, wanted = self.output_padding, [*needed, False]
        x_grad, weight_grad, _ = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, self.stride, self.padding, (1, 1), True, more, self.groups, wanted
        )
        return x_grad, weight_grad

    def kernel(self, weight: Tensor, *, x: QuantDType, out_dtype: QuantDType, **parameters: Any) -> Kernel:
        """Weights become I, kernel, O / groups."""
        return ConvTranspose2d(
            weight=self.restored(weight).movedim(1, -1),
            stride=tuple(self.stride),
            pad=(0, 0) if self.crops else tuple(self.padding),
            output_padding=tuple(self.output_padding),
            groups=self.groups,
            **parameters,
        )

    @property
    def crops(self) -> bool:
        """Whether the hardware lacks this padding, so that the edges are computed and then cut off."""
        return bool(padding_problems(tuple(self.kernel_size), tuple(self.stride), tuple(self.padding)))

    def apply_kernel(
        self, kernel: Kernel, out: Output, x: QTensor, *addend: QTensor, axis: int, narrow: bool
    ) -> QTensor:
        """Cut off what the kernel could not."""
        y: Any = super().apply_kernel(kernel, out, x, *addend, axis=axis, narrow=narrow)
        if not self.crops:
            return y  # type: ignore[no-any-return]
        (top, left), (height, width) = self.padding, y.shape[2:]
        cropped: QTensor = y[:, :, top : height - top, left : width - left]
        return cropped


class QuantizedConvTranspose2d(ConvTransposeOperator, WeightedQuantized):
    """Transposed convolution of integers."""


class QATConvTranspose2d(ConvTransposeOperator, WeightedQAT):
    """Transposed convolution under quantization-aware training."""

    quantized = QuantizedConvTranspose2d

    @classmethod
    def limits(
        cls, module: nn.Module, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """Hold kernel, stride, padding, groups and types to the march's row."""
        layer = layer_of(module)
        cut = [] if cls.adds else padding_problems(layer.kernel_size, layer.stride, layer.padding)
        if dtype is not qint8:
            return [f"output type {dtype} (allowed: {qint8}; a qconfig without activation part means qint32)"]
        return [
            *conv_transpose2d_limits(
                row,
                kernel=layer.kernel_size,
                stride=layer.stride,
                pad=(0, 0) if cut else layer.padding,
                output_padding=layer.output_padding,
                dilation=layer.dilation,
                x=next(iter(inputs), None) or qint8,
            ),
            *fused_problems(cls, row, dtype, inputs),
        ]


_CONVERTED = (
    QuantizedConvTransposeReLU2d,
    QuantizedConvTransposeReLU62d,
    QuantizedConvTransposeAdd2d,
    QuantizedConvTransposeAddReLU2d,
    QuantizedConvTransposeAddReLU62d,
) = forms_of(QuantizedConvTranspose2d, nn.ConvTranspose2d)
_TRAINED = (
    QATConvTransposeReLU2d,
    QATConvTransposeReLU62d,
    QATConvTransposeAdd2d,
    QATConvTransposeAddReLU2d,
    QATConvTransposeAddReLU62d,
) = forms_of(QATConvTranspose2d, nn.ConvTranspose2d, _CONVERTED)

ROWS = weighted_rows(nn.ConvTranspose2d, QATConvTranspose2d, _TRAINED, ("conv_transpose2d",))

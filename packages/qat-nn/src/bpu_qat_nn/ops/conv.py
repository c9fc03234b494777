"""Convolution in two and three dimensions, alone or with BatchNorm, addition and ReLU in one operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_kernels.dtypes import QuantDType, qint8
from bpu_kernels.kernel import Kernel
from bpu_kernels.march import MarchRow
from bpu_kernels.ops import conv as kernels

from ..op import Output, type_problems
from ..qtensor import QTensor
from .family import forms_of, fused_problems, layer_output, weighted_rows
from .weighted import WeightedQAT, WeightedQuantized
from .weighted_operator import WeightedOperator

__all__ = ["ROWS", "layer_of"]

_CONFIG = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")


def layer_of(module: Any) -> Any:
    """Return the layer with weights of a plain or fused float module."""
    return getattr(module, "conv", module)


def symmetric_pad(layer: Any) -> tuple[int, ...]:
    """Return the zeros added to both sides of each axis; "valid" and odd "same" are symmetric too.

    Raises:
        ValueError: "same" with a kernel that needs one more zero on one side.
    """
    if not isinstance(layer.padding, str):
        return tuple(layer.padding)
    if layer.padding == "valid":
        return (0,) * len(layer.kernel_size)
    total = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    if any(t % 2 for t in total):
        raise ValueError("padding='same' with an even kernel, which is asymmetric; pad with ZeroPad2d before the layer")
    return tuple(t // 2 for t in total)


def padding_problems(layer: Any) -> list[str]:
    """Return what of a layer's padding has no integer form."""
    found = []
    if layer.padding_mode != "zeros":
        found.append(f"padding_mode {layer.padding_mode!r} (allowed: 'zeros')")
    try:
        symmetric_pad(layer)
    except ValueError as error:
        found.append(str(error))
    return found


def picks(layer: Any) -> bool:
    """Whether a stride that the hardware does not have is picked from the result of stride 1.

    That is so for a dilated convolution, and in three dimensions where the strides differ.
    """
    uneven = len(layer.stride) == 3 and len(set(layer.stride)) > 1
    return uneven or (max(layer.dilation) > 1 and max(layer.stride) > 1)


def _stride(layer: Any, cls: type[WeightedOperator]) -> tuple[int, ...]:
    """Return the stride that the convolution itself has; with a residual it cannot be picked."""
    return (1,) * len(layer.stride) if picks(layer) and not cls.adds else tuple(layer.stride)


class ConvOperator(WeightedOperator):
    """``relu(conv(x, w) + b + residual)`` with NCHW or NCDHW activations and OI... weights."""

    config: ClassVar[tuple[str, ...]] = _CONFIG
    axes: ClassVar[int | None] = 4

    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def linear_map(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve."""
        convolve: Any = F.conv2d if self.axes == 4 else F.conv3d
        y: Tensor = convolve(x, weight, bias, self.stride, symmetric_pad(self), self.dilation, self.groups)
        return y

    def gradients(
        self, gradient: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Transposed convolution with the weight, convolution with the input, sum."""
        pad, none = symmetric_pad(self), [0] * len(self.stride)
        return torch.ops.aten.convolution_backward(  # type: ignore[no-any-return]
            gradient, x, weight, [weight.shape[0]], self.stride, pad, self.dilation, False, none, self.groups, needed
        )

    def kernel(self, weight: Tensor, *, x: QuantDType, out_dtype: QuantDType, **parameters: Any) -> Kernel:
        """Weights OI... become O...I."""
        form = kernels.Conv2d if self.axes == 4 else kernels.Conv3d
        return form(
            weight=weight.movedim(1, -1),
            stride=_stride(self, type(self)),
            pad=symmetric_pad(self),
            dilation=tuple(self.dilation),
            groups=self.groups,
            out_dtype=out_dtype,
            **parameters,
        )

    def apply_kernel(
        self, kernel: Kernel, out: Output, x: QTensor, *addend: QTensor, axis: int, narrow: bool
    ) -> QTensor:
        """Convolve, and pick where the stride asks for it."""
        y: Any = super().apply_kernel(kernel, out, x, *addend, axis=axis, narrow=narrow)
        if not picks(self) or self.adds:
            whole: QTensor = y
            return whole
        picked: QTensor = y[(slice(None), slice(None), *(slice(None, None, each) for each in self.stride))]
        return picked


class QuantizedConv2d(ConvOperator, WeightedQuantized):
    """Convolution of integers."""


class QATConv2d(ConvOperator, WeightedQAT):
    """Two-dimensional convolution under quantization-aware training."""

    quantized = QuantizedConv2d

    @classmethod
    def limits(
        cls, module: nn.Module, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """Hold kernel, stride, padding, dilation, channels and types to the march's row."""
        layer = layer_of(module)
        out, relu = layer_output(cls, row, dtype, inputs)
        return padding_problems(layer) or [
            *kernels.conv2d_limits(
                row,
                kernel=layer.kernel_size,
                stride=_stride(layer, cls),
                pad=symmetric_pad(layer),
                dilation=layer.dilation,
                groups=layer.groups,
                in_channels=layer.in_channels,
                out_channels=layer.out_channels,
                x=next(iter(inputs), None) or qint8,
                out=out,
                relu=relu,
            ),
            *fused_problems(cls, row, dtype, inputs),
        ]


class QuantizedConv3d(ConvOperator, WeightedQuantized):
    """Three-dimensional convolution of integers."""

    gives_int16: ClassVar[bool] = False
    axes: ClassVar[int | None] = 5


class QATConv3d(ConvOperator, WeightedQAT):
    """Three-dimensional convolution under quantization-aware training."""

    gives_int16: ClassVar[bool] = False
    axes: ClassVar[int | None] = 5
    quantized = QuantizedConv3d

    @classmethod
    def limits(
        cls, module: nn.Module, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """Hold kernel, stride, padding, groups and types to the march's row."""
        if "conv3d" in row.refused_kernels:
            return ["three-dimensional convolution"]
        layer = layer_of(module)
        found = [*padding_problems(layer), *type_problems(inputs, [qint8])]
        if dtype is not qint8:
            found.append(f"output type {dtype} (allowed: {qint8})")
        return found or kernels.conv3d_limits(
            row,
            kernel=layer.kernel_size,
            stride=_stride(layer, cls),
            pad=symmetric_pad(layer),
            dilation=layer.dilation,
            groups=layer.groups,
        )


_CONVERTED_2D = (
    QuantizedConvReLU2d,
    QuantizedConvReLU62d,
    QuantizedConvAdd2d,
    QuantizedConvAddReLU2d,
    QuantizedConvAddReLU62d,
) = forms_of(QuantizedConv2d, nn.Conv2d)
_TRAINED_2D = (
    QATConvReLU2d,
    QATConvReLU62d,
    QATConvAdd2d,
    QATConvAddReLU2d,
    QATConvAddReLU62d,
) = forms_of(QATConv2d, nn.Conv2d, _CONVERTED_2D)
_CONVERTED_3D = (
    QuantizedConvReLU3d,
    QuantizedConvReLU63d,
    QuantizedConvAdd3d,
    QuantizedConvAddReLU3d,
    QuantizedConvAddReLU63d,
) = forms_of(QuantizedConv3d, nn.Conv3d)
_TRAINED_3D = (
    QATConvReLU3d,
    QATConvReLU63d,
    QATConvAdd3d,
    QATConvAddReLU3d,
    QATConvAddReLU63d,
) = forms_of(QATConv3d, nn.Conv3d, _CONVERTED_3D)

ROWS = (
    *weighted_rows(nn.Conv2d, QATConv2d, _TRAINED_2D, ("conv2d",)),
    *weighted_rows(nn.Conv3d, QATConv3d, _TRAINED_3D, ("conv3d",)),
)

"""Convolution in two and three dimensions, alone or with BatchNorm, addition and ReLU in one operator."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_kernels.dtypes import QuantDType, qint8
from bpu_kernels.kernel import Kernel
from bpu_kernels.march import MarchRow
from bpu_kernels.ops import conv as kernels

from ...op import Output, type_problems
from ...qtensor import QTensor
from .family import forms_of, fused_problems, layer_output, weighted_rows
from .layer import WeightedQAT, WeightedQuantized
from .operator import WeightedOperator
from .rearranged import by_patches, from_phases, phases_of, picks, to_patches, to_phases

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


def arranged(layer: Any, row: MarchRow, cls: type[WeightedOperator]) -> dict[str, Any]:
    """Return kernel size, stride, pad, dilation and input channels of the convolution that runs for a layer.

    They are the layer's, unless it is one of those that are rearranged; with a residual none is.
    """
    own = {
        "kernel": tuple(layer.kernel_size),
        "stride": tuple(layer.stride),
        "pad": symmetric_pad(layer),
        "dilation": tuple(layer.dilation),
        "in_channels": layer.in_channels,
    }
    if cls.adds:
        return own
    if by_patches(layer, row):
        channels = layer.in_channels * prod(layer.kernel_size)
        return {**own, "kernel": (1, 1), "stride": (1, 1), "in_channels": channels}
    if picks(layer):
        own["stride"] = (1,) * len(layer.stride)
    phases = phases_of(layer, row)
    if max(phases) > 1:
        own["pad"] = (0, 0)
        own["dilation"] = tuple(d // f for d, f in zip(layer.dilation, phases, strict=True))
    return own


class ConvOperator(WeightedOperator):
    """``relu(conv(x, w) + b + residual)`` with NCHW or NCDHW activations and OI... weights."""

    config: ClassVar[tuple[str, ...]] = _CONFIG
    fixed: ClassVar[tuple[str, ...]] = ("kernel_size", "groups", "padding_mode")
    axes: ClassVar[int | None] = 4

    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    kernel_size: tuple[int, int]

    @property
    def runs_as_it_is(self) -> bool:
        """Whether nothing is rearranged for the hardware."""
        return not (by_patches(self, self.row) or max(phases_of(self, self.row)) > 1 or picks(self))

    def linear_map(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve."""
        convolve: Any = F.conv2d if self.axes == 4 else F.conv3d
        y: Tensor = convolve(x, weight, bias, self.stride, symmetric_pad(self), self.dilation, self.groups)
        return y

    def gradients(
        self, gradient: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Transposed convolution with the weight, convolution with the input."""
        pad, none, wanted = symmetric_pad(self), [0] * len(self.stride), [*needed, False]
        x_grad, weight_grad, _ = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, self.stride, pad, self.dilation, False, none, self.groups, wanted
        )
        return x_grad, weight_grad

    def kernel(self, weight: Tensor, *, x: QuantDType, out_dtype: QuantDType, **parameters: Any) -> Kernel:
        """Weights OI... become O...I."""
        form = kernels.Conv2d if self.axes == 4 else kernels.Conv3d
        runs = arranged(self, self.row, type(self))
        return form(
            weight=weight.movedim(1, -1).reshape(weight.shape[0], *runs["kernel"], -1),
            stride=runs["stride"],
            pad=runs["pad"],
            dilation=runs["dilation"],
            groups=self.groups,
            out_dtype=out_dtype,
            **parameters,
        )

    def apply_kernel(
        self, kernel: Kernel, out: Output, x: QTensor, *addend: QTensor, axis: int, narrow: bool
    ) -> QTensor:
        """Convolve; what is rearranged is brought to its form before, and back behind."""
        call = partial(super().apply_kernel, kernel, out, axis=axis, narrow=narrow)
        if self.adds or self.runs_as_it_is:
            return call(x, *addend)
        if by_patches(self, self.row):
            return call(to_patches(x, self.kernel_size))
        phases, y = phases_of(self, self.row), x
        if max(phases) > 1:
            pad = symmetric_pad(self)
            reach = zip(x.shape[2:], pad, self.dilation, self.kernel_size, strict=True)
            high, wide = (int(n) + 2 * p - d * (k - 1) for n, p, d, k in reach)
            y = from_phases(call(to_phases(x, (pad[0], pad[1]), phases, self.row)), phases, (high, wide))
        else:
            y = call(x)
        whole: Any = y
        return whole[(..., *(slice(None, None, each) for each in self.stride))] if picks(self) else y


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
                **arranged(layer, row, cls),
                groups=layer.groups,
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
        runs = {name: value for name, value in arranged(layer, row, cls).items() if name != "in_channels"}
        return found or kernels.conv3d_limits(row, **runs, groups=layer.groups)


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

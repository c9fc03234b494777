"""Convolution in two and three dimensions, alone or with BatchNorm, addition and ReLU in one operator."""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from bpu_fx_fusion import FUSED_CLASSES, FusedConvAdd
from bpu_kernels.dtypes import QuantDType, qint8
from bpu_kernels.kernel import Kernel
from bpu_kernels.march import MarchRow
from bpu_kernels.ops import conv as kernels

from ..op import OpRow
from .weighted import WeightedOperator, WeightedQAT, WeightedQuantized

__all__ = ["ROWS", "fused_forms", "layer_of"]

_CONFIG = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")


def layer_of(module: Any) -> Any:
    """Return the layer with weights of a plain or fused float module."""
    return getattr(module, "conv", module)


def fused_forms(layer: type[nn.Module]) -> dict[str, tuple[type[nn.Module], ...]]:
    """Return the fused float modules of a layer type by the name of their QAT form: BatchNorm kept or not is one."""
    forms: dict[str, tuple[type[nn.Module], ...]] = {}
    for (conv, _, _, _), fused in FUSED_CLASSES.items():
        if conv is layer:
            name = fused.__name__.replace("BN", "")
            forms[name] = (*forms.get(name, ()), fused)
    return {name: forms[name] for name in sorted(forms, key=len)}


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
        raise ValueError("padding='same' with an even kernel is asymmetric; pad with ZeroPad2d before the layer")
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


class ConvOperator(WeightedOperator):
    """``relu(conv(x, w) + b + residual)`` with NCHW or NCDHW activations and OI... weights."""

    config: ClassVar[tuple[str, ...]] = _CONFIG
    rank: ClassVar[int] = 2

    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def linear_map(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve."""
        convolve: Any = F.conv2d if self.rank == 2 else F.conv3d
        y: Tensor = convolve(x, weight, bias, self.stride, symmetric_pad(self), self.dilation, self.groups)
        return y

    def kernel(self, weight: Tensor, **parameters: Any) -> Kernel:
        """Weights OI... become O...I."""
        form = kernels.Conv2d if self.rank == 2 else kernels.Conv3d
        return form(
            weight=weight.movedim(1, -1),
            stride=tuple(self.stride),
            pad=symmetric_pad(self),
            dilation=tuple(self.dilation),
            groups=self.groups,
            **parameters,
        )


class QuantizedConv2d(ConvOperator, WeightedQuantized):
    """Convolution of integers."""


class QATConv2d(ConvOperator, WeightedQAT):
    """Two-dimensional convolution under quantization-aware training."""

    quantized = QuantizedConv2d

    @classmethod
    def limits(cls, module: nn.Module, row: MarchRow, dtype: QuantDType) -> list[str]:
        """Hold kernel, stride, padding, dilation, channels and types to the march's row."""
        layer, found = layer_of(module), padding_problems(layer_of(module))
        return found or kernels.conv2d_limits(
            row,
            kernel=layer.kernel_size,
            stride=layer.stride,
            pad=symmetric_pad(layer),
            dilation=layer.dilation,
            groups=layer.groups,
            in_channels=layer.in_channels,
            out_channels=layer.out_channels,
            x=qint8,
            out=dtype,
            relu=hasattr(module, "relu"),
        )


class QuantizedConv3d(ConvOperator, WeightedQuantized):
    """Three-dimensional convolution of integers."""

    rank: ClassVar[int] = 3


class QATConv3d(ConvOperator, WeightedQAT):
    """Three-dimensional convolution under quantization-aware training."""

    rank: ClassVar[int] = 3
    quantized = QuantizedConv3d

    @classmethod
    def limits(cls, module: nn.Module, row: MarchRow, dtype: QuantDType) -> list[str]:
        """Hold kernel, stride, padding, groups and types to the march's row."""
        layer, found = layer_of(module), padding_problems(layer_of(module))
        if "conv3d" in row.refused_kernels:
            return ["three-dimensional convolution is not available"]
        if dtype is not qint8:
            found.append(f"output type {dtype} (allowed: {qint8})")
        return found or kernels.conv3d_limits(
            row,
            kernel=layer.kernel_size,
            stride=layer.stride,
            pad=symmetric_pad(layer),
            dilation=layer.dilation,
            groups=layer.groups,
        )


def weighted_rows(
    layer: type[nn.Module],
    qat: type[WeightedQAT],
    quantized: type[WeightedQuantized],
    kernel: str,
    *,
    also: tuple[type[nn.Module], ...] = (),
) -> list[OpRow]:
    """Return the rows of a layer (``also``: of its variants) and of its fused forms, each with classes of its name."""
    rows = [OpRow(name=layer.__name__, floats=(layer, *also), qat=qat, kernels=(kernel,))]
    for name, floats in fused_forms(layer).items():
        note = (
            "The second input is added at the accumulator's precision." if issubclass(floats[0], FusedConvAdd) else ""
        )
        about = {"__doc__": f"{name} of integers.", "__module__": quantized.__module__}
        converted = type(f"Quantized{name}", (quantized,), about)
        about = {"__doc__": f"{name} under quantization-aware training.", "__module__": qat.__module__}
        trained = type(f"QAT{name}", (qat,), {**about, "quantized": converted})
        used = (kernel, "lut8", "lut16") if "ReLU6" in name else (kernel,)
        rows.append(OpRow(name=name, floats=floats, qat=trained, kernels=used, note=note))
    return rows


ROWS = (
    *weighted_rows(nn.Conv2d, QATConv2d, QuantizedConv2d, "conv2d"),
    *weighted_rows(nn.Conv3d, QATConv3d, QuantizedConv3d, "conv3d"),
)
globals().update(
    {cls.__name__: cls for row in ROWS for cls in (row.qat, row.qat.quantized)}
)  # so that pickles find them

"""Linear layers, alone or with BatchNorm1d, addition and ReLU.

The BPU's own linear operator takes and gives int8; with other types the layer runs as a 1 x 1 convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from bpu_fx_fusion import FoldedLinear
from bpu_kernels.dtypes import QuantDType, qint8, qint16
from bpu_kernels.kernel import Kernel, outside
from bpu_kernels.march import MarchRow
from bpu_kernels.ops.conv import Conv2d, conv2d_limits
from bpu_kernels.ops.linear import Linear
from bpu_kernels.torch_ops import finish
from bpu_qconfig import QConfig

from ...errors import InputError
from ...op import Output
from ...qtensor import QTensor
from .conv import layer_of
from .family import forms_of, fused_problems, layer_output, weighted_rows
from .layer import WeightedQAT, WeightedQuantized
from .operator import WeightedOperator

__all__ = ["ROWS"]

_POINTWISE: dict[str, Any] = {"kernel": (1, 1), "stride": (1, 1), "pad": (0, 0), "dilation": (1, 1), "groups": 1}
"""The convolution that stands for a linear layer."""


class LinearOperator(WeightedOperator):
    """``relu(x @ w.T + b + residual)`` over the last axis."""

    config: ClassVar[tuple[str, ...]] = ("in_features", "out_features")

    def linear_map(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Multiply."""
        return F.linear(x, weight, bias)

    def gradients(
        self, gradient: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Products with the weight and with the input."""
        rows, inputs = gradient.flatten(0, -2), x.flatten(0, -2)
        return gradient @ weight if needed[0] else None, rows.T @ inputs if needed[1] else None

    def channel_axis(self, dimensions: int) -> int:
        """Features are the last axis."""
        return dimensions - 1

    def expect_axes(self, inputs: Sequence[QTensor]) -> None:
        """A batch and features at least."""
        if len(inputs[0].shape) < 2:
            raise InputError(f"{self.label} expected a batch and features, got the shape {tuple(inputs[0].shape)}")

    def kernel(self, weight: Tensor, *, x: QuantDType, out_dtype: QuantDType, **parameters: Any) -> Kernel:
        """The linear operator for int8 on both sides, else a convolution."""
        if x is qint8 and out_dtype is qint8:
            return Linear(weight=weight, **parameters)
        return Conv2d(weight=weight[:, None, None, :], out_dtype=out_dtype, **parameters)

    def apply_kernel(
        self, kernel: Kernel, out: Output, x: QTensor, *addend: QTensor, axis: int, narrow: bool
    ) -> QTensor:
        """For the convolution, every position of the leading axes becomes a pixel; no element moves."""
        if isinstance(kernel, Linear):
            return super().apply_kernel(kernel, out, x, *addend, axis=axis, narrow=narrow)
        maps = [_as_map(value) for value in (x, *addend)]
        y = super().apply_kernel(kernel, out, *maps, axis=axis, narrow=narrow)
        flat: Any = y.permute(0, 2, 3, 1)
        restored: QTensor = flat.reshape(*x.shape[:-1], flat.shape[-1])
        return restored


def _as_map(x: Any) -> QTensor:
    """(N, ..., C) -> (N, C, L, 1)."""
    batch, *middle, channels = x.shape
    pixels = 1
    for length in middle:
        pixels *= int(length)
    seen: QTensor = x.reshape(batch, pixels, 1, channels).permute(0, 3, 1, 2)
    return seen


class QuantizedLinear(LinearOperator, WeightedQuantized):
    """Linear layer of integers."""


class QATLinear(LinearOperator, WeightedQAT):
    """Linear layer under quantization-aware training."""

    quantized = QuantizedLinear
    normalizes: bool
    """Whether a BatchNorm1d belongs to this layer, folded or kept."""

    def __init__(self, source: nn.Module, qconfig: QConfig, row: MarchRow, path: str = "") -> None:
        super().__init__(source, qconfig, row, path)
        self.normalizes = isinstance(layer_of(source), FoldedLinear) or self.bn is not None

    def finish_accumulator(self, kernel: Any, acc: Tensor, addend: tuple[Tensor, ...], *, narrow: bool) -> Tensor:
        """The convolution that stands for the layer has its channels second."""
        if isinstance(kernel, Linear):
            return super().finish_accumulator(kernel, acc, addend, narrow=narrow)
        moved = finish(kernel, acc.movedim(-1, 1), self.row, *(a.movedim(-1, 1) for a in addend), narrow=narrow)
        return moved.movedim(1, -1)

    def expect_axes(self, inputs: Sequence[QTensor]) -> None:
        """Hold a layer with BatchNorm1d to two axes: there alone it normalizes the features."""
        super().expect_axes(inputs)
        if self.normalizes and len(inputs[0].shape) != 2:
            raise InputError(
                f"{self.label}: a BatchNorm1d is part of this layer, which is right for inputs of shape (N, features) "
                f"only; got {tuple(inputs[0].shape)}. Flatten the input"
            )

    @classmethod
    def limits(
        cls, module: nn.Module, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """Hold features and types to the march's row."""
        layer, x = layer_of(module), next(iter(inputs), None) or qint8
        features = {"in_channels": layer.in_features, "out_channels": layer.out_features}
        if x is qint8 and dtype is qint8 and qint16 not in inputs:
            found = outside("input features", [layer.in_features], row.taps)
            found += outside("output features", [layer.out_features], row.output_channels)
        else:
            out, relu = layer_output(cls, row, dtype, inputs)
            found = conv2d_limits(row, **_POINTWISE, **features, x=x, out=out, relu=relu)
        return found + fused_problems(cls, row, dtype, inputs)


_CONVERTED = (
    QuantizedLinearReLU,
    QuantizedLinearReLU6,
    QuantizedLinearAdd,
    QuantizedLinearAddReLU,
    QuantizedLinearAddReLU6,
) = forms_of(QuantizedLinear, nn.Linear)
_TRAINED = (
    QATLinearReLU,
    QATLinearReLU6,
    QATLinearAdd,
    QATLinearAddReLU,
    QATLinearAddReLU6,
) = forms_of(QATLinear, nn.Linear, _CONVERTED)

ROWS = weighted_rows(nn.Linear, QATLinear, _TRAINED, ("linear", "conv2d"), also=(FoldedLinear,))

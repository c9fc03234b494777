"""Linear layers, alone or with BatchNorm1d, addition and ReLU; a high-precision one runs as a 1 x 1 convolution."""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from bpu_fx_fusion import FoldedLinear
from bpu_kernels.dtypes import QuantDType, qint8, qint32
from bpu_kernels.kernel import Kernel
from bpu_kernels.march import MarchRow
from bpu_kernels.ops.conv import Conv2d
from bpu_kernels.ops.linear import Linear
from bpu_kernels.torch_ops import finish
from bpu_qconfig import QConfig

from ..errors import BpuQatError
from ..op import Output
from ..qtensor import QTensor
from .conv import layer_of, weighted_rows
from .weighted import WeightedOperator, WeightedQAT, WeightedQuantized

__all__ = ["ROWS"]


class LinearOperator(WeightedOperator):
    """``relu(x @ w.T + b + residual)`` over the last axis."""

    config: ClassVar[tuple[str, ...]] = ("in_features", "out_features")

    def linear_map(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Multiply."""
        return F.linear(x, weight, bias)

    def along_output(self, values: Tensor, dimensions: int) -> Tensor:
        """Features are the last axis."""
        return values

    def kernel(self, weight: Tensor, **parameters: Any) -> Kernel:
        """int32 output exists for convolutions only (2), so there the layer is one."""
        if parameters["out_dtype"] is qint32:
            return Conv2d(weight=weight[:, None, None, :], **parameters)
        parameters.pop("out_dtype")
        return Linear(weight=weight, **parameters)

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
    batch, *_, channels = x.shape
    pixels = x.numel() // (batch * channels)
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
        """The convolution that stands for a high-precision layer has its channels second."""
        if isinstance(kernel, Linear):
            return super().finish_accumulator(kernel, acc, addend, narrow=narrow)
        moved = finish(kernel, acc.movedim(-1, 1), self.row, *(a.movedim(-1, 1) for a in addend), narrow=narrow)
        return moved.movedim(1, -1)

    def forward(self, *inputs: QTensor) -> QTensor:
        """Hold a folded BatchNorm1d to two-dimensional inputs: there alone it normalizes the features."""
        if self.normalizes and len(inputs[0].shape) != 2:
            raise BpuQatError(
                f"{self.path}: a BatchNorm1d is part of this Linear, which is right for inputs of shape (N, features) "
                f"only; got {tuple(inputs[0].shape)}. Flatten the input"
            )
        return super().forward(*inputs)

    @classmethod
    def limits(cls, module: nn.Module, row: MarchRow, dtype: QuantDType) -> list[str]:
        """Hold features and types to the march's row."""
        layer = layer_of(module)
        found = (
            [f"output type {dtype} (allowed: {qint8}, or {qint32} without activation part)"]
            if dtype not in (qint8, qint32)
            else []
        )
        if layer.in_features not in row.taps:
            found.append(f"input features {layer.in_features} (allowed: {row.taps})")
        if layer.out_features not in row.output_channels:
            found.append(f"output features {layer.out_features} (allowed: {row.output_channels})")
        if dtype is qint32 and hasattr(module, "relu") and not row.rounds:
            found.append("ReLU fused to an int32 output; apply it outside the model, or quantize the output")
        return found


ROWS = tuple(weighted_rows(nn.Linear, QATLinear, QuantizedLinear, "linear", also=(FoldedLinear,)))
globals().update(
    {cls.__name__: cls for row in ROWS for cls in (row.qat, row.qat.quantized)}
)  # so that pickles find them

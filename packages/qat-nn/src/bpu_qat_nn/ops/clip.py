"""Clipping: ReLU, ReLU6, Hardtanh, clamp, and abs; the scale stays, so each is a comparison of integers."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bpu_fx_fusion import Abs, Clamp
from bpu_kernels.dtypes import QuantDType, qint8
from bpu_kernels.kernel import Kernel
from bpu_kernels.ops.elementwise import Relu
from bpu_kernels.ops.lut import ENTRIES, ZONES, Lut8, Lut16, SegmentLine

from ..op import Operator, OpRow, Output
from ..qat_module import QATModule
from ..qtensor import QTensor
from ..quantized_module import QuantizedModule

__all__ = ["ROWS", "clip_above", "clip_steps", "two_lines"]


def clip_kernels(low: int, high: int, dtype: QuantDType, device: torch.device) -> list[Kernel]:
    """Return the kernels that clip steps to low..high; none where that changes nothing."""
    if low <= dtype.min and high >= dtype.max:
        return []
    if dtype is qint8:
        if (low, high) == (0, qint8.max):
            return [Relu()]
        return [Lut8(table=torch.arange(-128, 128, device=device).clamp(low, high).to(torch.int8))]
    kernels: list[Kernel] = []
    if low > dtype.min:  # left line: the constant low; right line: x itself
        kernels.append(two_lines(left=(0, low), right=(1, 0), border=low, device=device))
    if high < dtype.max:
        kernels.append(two_lines(left=(1, 0), right=(0, high), border=high, device=device))
    return kernels


def two_lines(*, left: tuple[int, int], right: tuple[int, int], border: int, device: torch.device) -> Lut16:
    """Return the segment table that is one line ``k * x + b`` up to the border and another beyond; no zone is used."""
    count = ZONES + 2
    slopes, offsets = ([left[i], *[right[i]] * (count - 1)] for i in (0, 1))
    zeros = torch.zeros(count, dtype=torch.int32, device=device)
    line = SegmentLine(
        k=torch.tensor(slopes, dtype=torch.int32, device=device),
        b=torch.tensor(offsets, dtype=torch.int32, device=device),
        add_lsh=zeros,
        sum_rsh=zeros,
        max=zeros + border,
    )
    return Lut16(line=line, tables=torch.zeros(ZONES, ENTRIES, dtype=torch.int16, device=device))


def clip_steps(x: QTensor, low: float, high: float, operator: Operator) -> QTensor:
    """Clip to real bounds, rounded to whole steps."""

    def build() -> list[Kernel]:
        scale = float(x.scale)
        bounds = [round(min(max(bound / scale, x.dtype.min), x.dtype.max)) for bound in (low, high)]
        return clip_kernels(bounds[0], bounds[1], x.dtype, x.scale.device)

    for kernel in operator.derived.get([x], build, "clip", low, high):
        x = x.invoke(kernel, operator.row, x, scale=x.scale, dtype=x.dtype)
    return x


def clip_above(x: QTensor, high: float, operator: Operator) -> QTensor:
    """Clip what a layer with fused ReLU6 gives; usually the scale is so small that saturation has done it."""
    return clip_steps(x, -math.inf, high, operator)


class ClipOperator(Operator):
    """Clip to ``low..high``, real bounds."""

    own_scale: ClassVar[bool] = False
    low: float
    high: float

    def configure(self, source: Any) -> None:
        """Read the bounds off the float module."""
        self.low, self.high = _BOUNDS[type(source)](source) if type(source) in _BOUNDS else (source.low, source.high)

    def real(self, *inputs: Tensor) -> Tensor:
        """Clamp."""
        return inputs[0].clamp(self.low, self.high)

    def steps(self, out: Output, *inputs: QTensor) -> QTensor:
        """Compare integers."""
        return clip_steps(inputs[0], self.low, self.high, self)

    def extra_repr(self) -> str:
        """Bounds."""
        return f"low={self.low}, high={self.high}"


class QuantizedClip(ClipOperator, QuantizedModule):
    """Clipping of integers."""


class QATClip(ClipOperator, QATModule):
    """Clipping under quantization-aware training."""

    quantized = QuantizedClip


def _bounds_of_clamp(module: Any) -> tuple[float, float]:
    low, high = module.min, module.max
    return -math.inf if low is None else float(low), math.inf if high is None else float(high)


class AbsOperator(Operator):
    """The absolute value; that of the smallest step is the largest."""

    own_scale: ClassVar[bool] = False

    def real(self, *inputs: Tensor) -> Tensor:
        """Drop the sign."""
        return inputs[0].abs()

    def steps(self, out: Output, *inputs: QTensor) -> QTensor:
        """Look up."""
        x = inputs[0]
        if x.dtype is qint8:
            steps = torch.arange(-128, 128, device=x.scale.device).abs().clamp(max=qint8.max)
            kernel: Kernel = Lut8(table=steps.to(torch.int8))
        else:
            kernel = two_lines(left=(-1, 0), right=(1, 0), border=0, device=x.scale.device)
        return x.invoke(kernel, self.row, x, scale=x.scale, dtype=x.dtype)


class QuantizedAbs(AbsOperator, QuantizedModule):
    """Absolute values of integers."""


class QATAbs(AbsOperator, QATModule):
    """Absolute values under quantization-aware training."""

    quantized = QuantizedAbs


_BOUNDS: dict[type, Any] = {
    nn.ReLU: lambda module: (0.0, math.inf),
    nn.ReLU6: lambda module: (0.0, 6.0),
    nn.Hardtanh: lambda module: (module.min_val, module.max_val),
    Clamp: _bounds_of_clamp,
}


ROWS = (
    OpRow(
        name="clip",
        floats=tuple(_BOUNDS),
        qat=QATClip,
        kernels=("relu", "lut8", "lut16"),
        note="Keeps the input's scale. Behind a layer with weights, ReLU and ReLU6 are fused into it.",
    ),
    OpRow(name="abs", floats=(Abs,), qat=QATAbs, kernels=("lut8", "lut16"), note="Keeps the input's scale."),
)

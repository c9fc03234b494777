"""Resizing feature maps, nearest and bilinear; the scale stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import nn

from bpu_fx_fusion import Interpolate
from bpu_kernels.dtypes import QuantDType
from bpu_kernels.kernel import Kernel
from bpu_kernels.march import MarchRow
from bpu_kernels.ops.resize import ResizeBilinear, ResizeNearest

from ..errors import BpuQatError
from ..op import Operator, OpRow, Output, QATModule, QuantizedModule
from ..qtensor import QTensor

__all__ = ["ROWS"]


class ResizeOperator(Operator):
    """``F.interpolate`` to a size, or by factors."""

    own_scale: ClassVar[bool] = False
    config: ClassVar[tuple[str, ...]] = ("size", "scale_factor", "mode", "align_corners")

    size: Any
    scale_factor: Any
    mode: str

    def target(self, shape: Sequence[int], size: Any = None, scale_factor: Any = None) -> tuple[int, int]:
        """Return the output's height and width for an input of this shape; what the call gives wins."""
        size = self.size if size is None and scale_factor is None else size
        if size is not None:
            return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))
        factor = self.scale_factor if scale_factor is None else scale_factor
        if factor is None:
            raise BpuQatError(f"{getattr(self, 'path', '')}: neither size nor scale_factor is given")
        factors = factor if isinstance(factor, (tuple, list)) else (factor, factor)
        return int(shape[2] * factors[0]), int(shape[3] * factors[1])

    def resize(self, out: Output, x: QTensor, size: tuple[int, int]) -> QTensor:
        """Copy, or blend with 8-bit weights."""
        if size == tuple(x.shape[2:]):
            return x
        kernel: Kernel = ResizeNearest(size=size)
        if self.mode == "bilinear":
            legacy, precision = self.row.resize_modes[-1]
            kernel = ResizeBilinear(size=size, align="center", precision=precision, legacy=legacy)
        return x.invoke(kernel, self.row, x, scale=out.scale, dtype=out.dtype)

    def extra_repr(self) -> str:
        """Size or factor, and mode."""
        return f"size={self.size}, scale_factor={self.scale_factor}, mode={self.mode!r}"


class QuantizedInterpolate(ResizeOperator, QuantizedModule):
    """Resizing of integers."""

    def forward(self, x: QTensor, size: Any = None, scale_factor: Any = None) -> QTensor:  # type: ignore[override]
        """Resize; arguments win over attributes."""
        return self.resize(Output(x.scale, x.dtype), x, self.target(x.shape, size, scale_factor))


class QATInterpolate(ResizeOperator, QATModule):
    """Resizing under quantization-aware training."""

    quantized = QuantizedInterpolate

    def forward(self, x: QTensor, size: Any = None, scale_factor: Any = None) -> QTensor:  # type: ignore[override]
        """Resize to a size, so that torch, too, takes the ratio of the sizes for the step."""
        self.expect_quantized((x,))
        target = self.target(x.shape, size, scale_factor)
        return self.compute(
            lambda values: F.interpolate(values, size=target, mode=self.mode),
            lambda out, steps: self.resize(out, steps, target),
            (x,),
        )

    @classmethod
    def limits(cls, module: Any, row: MarchRow, dtype: QuantDType) -> list[str]:
        """Nearest or bilinear without align_corners."""
        found = []
        if module.mode not in ("nearest", "bilinear"):
            found.append(f"mode {module.mode!r} (allowed: 'nearest', 'bilinear')")
        if module.align_corners:
            found.append("align_corners=True (allowed: False, None)")
        return found


ROWS = (
    OpRow(
        name="Interpolate",
        floats=(Interpolate, nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d),
        qat=QATInterpolate,
        kernels=("resize_nearest", "resize_bilinear"),
        note="Bilinear samples at pixel centres (align_corners=False), weights of 8 bits.",
    ),
)

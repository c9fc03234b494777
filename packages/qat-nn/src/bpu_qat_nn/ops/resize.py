"""Resizing feature maps, nearest, bilinear and bicubic; the scale stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import nn

from bpu_fx_fusion import Interpolate
from bpu_kernels.dtypes import QuantDType, qint8
from bpu_kernels.kernel import Kernel
from bpu_kernels.march import MarchRow
from bpu_kernels.ops.resize import ResizeBilinear, ResizeNearest

from ..errors import InputError
from ..op import Operator, OpRow, Output, type_problems
from ..qat_module import QATModule
from ..qtensor import QTensor
from ..quantized_module import QuantizedModule
from .pooling.average import pair
from .resampled import resize_by_weights

__all__ = ["ROWS"]


class ResizeOperator(Operator):
    """``F.interpolate`` to a size, or by factors."""

    own_scale: ClassVar[bool] = False
    axes: ClassVar[int | None] = 4
    options: ClassVar[frozenset[str]] = frozenset({"size", "scale_factor"})
    config: ClassVar[tuple[str, ...]] = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor")

    size: Any
    scale_factor: Any
    mode: str
    align_corners: bool | None
    recompute_scale_factor: bool | None

    def target(self, shape: Sequence[int], size: Any = None, scale_factor: Any = None) -> tuple[int, int]:
        """Return the output's height and width for an input of this shape; what the call gives wins.

        Raises:
            InputError: neither is given, or a factor that torch would sample by itself instead of by the ratio of the
                sizes, which is what the BPU does.
        """
        size = self.size if size is None and scale_factor is None else size
        if size is not None:
            return pair(size)
        factor = self.scale_factor if scale_factor is None else scale_factor
        if factor is None:
            raise InputError(f"{self.label}: neither size nor scale_factor is given")
        factors = factor if isinstance(factor, (tuple, list)) else (factor, factor)
        exact = [float(length * f) for length, f in zip(shape[2:], factors, strict=True)]
        if not self.recompute_scale_factor and any(not length.is_integer() for length in exact):
            raise InputError(
                f"{self.label}: scale_factor {factor} of a {tuple(shape[2:])} map is no whole size; torch samples by "
                "the factor then, the BPU by the ratio of the sizes. Give size=, or recompute_scale_factor=True"
            )
        return int(exact[0]), int(exact[1])

    def resize(self, out: Output, x: QTensor, size: tuple[int, int]) -> QTensor:
        """Copy, or blend with 8-bit weights."""
        if size == tuple(x.shape[2:]):
            return x
        if self.mode == "bicubic" or self.align_corners:
            return resize_by_weights(self, x, size, self.mode, bool(self.align_corners))
        kernel: Kernel = ResizeNearest(size=size)
        if self.mode == "bilinear":
            legacy, precision = self.row.resize_modes[-1]
            kernel = ResizeBilinear(size=size, align="center", precision=precision, legacy=legacy)
        return x.invoke(kernel, self.row, x, scale=out.scale, dtype=out.dtype)

    def extra_repr(self) -> str:
        """Size or factor, mode, and whether corners are aligned."""
        aligned = ", align_corners=True" if self.align_corners else ""
        return f"size={self.size}, scale_factor={self.scale_factor}, mode={self.mode!r}{aligned}"


class QuantizedInterpolate(ResizeOperator, QuantizedModule):
    """Resizing of integers."""

    def forward(self, x: QTensor, size: Any = None, scale_factor: Any = None) -> QTensor:  # type: ignore[override]
        """Resize; arguments win over attributes."""
        self.expect_axes((x,))
        return self.resize(Output(x.scale, x.dtype), x, self.target(x.shape, size, scale_factor))


class QATInterpolate(ResizeOperator, QATModule):
    """Resizing under quantization-aware training."""

    quantized = QuantizedInterpolate

    def forward(self, x: QTensor, size: Any = None, scale_factor: Any = None) -> QTensor:  # type: ignore[override]
        """Resize to a size, so that torch, too, takes the ratio of the sizes for the step."""
        self.expect_quantized((x,))
        target = self.target(x.shape, size, scale_factor)
        return self.compute(
            lambda values: F.interpolate(values, size=target, mode=self.mode, align_corners=self.align_corners),
            lambda out, steps: self.resize(out, steps, target),
            (x,),
        )

    @classmethod
    def limits(
        cls, module: Any, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """Nearest by the march's factors, or bilinear; on Bayes also bicubic, and with align_corners; int8."""
        found = type_problems(inputs, [qint8])
        modes = ("nearest", "bilinear", *(("bicubic",) if row.moves_freely else ()))
        if module.mode not in modes:
            found.append(f"mode {module.mode!r} (allowed: {', '.join(map(repr, modes))})")
        if module.align_corners and not row.moves_freely:
            found.append("align_corners=True (allowed: False, None)")
        factors = module.scale_factor if isinstance(module.scale_factor, (tuple, list)) else [module.scale_factor]
        if module.mode == "nearest" and any(f is not None and f not in row.nearest_factor for f in factors):
            found.append(f"nearest scale_factor {module.scale_factor} (allowed: {row.nearest_factor})")
        return found


ROWS = (
    OpRow(
        name="Interpolate",
        floats=(Interpolate, nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d),
        qat=QATInterpolate,
        kernels=("resize_nearest", "resize_bilinear", "linear", "transpose"),
        note="Bilinear samples at pixel centres (align_corners=False), weights of 8 bits. Bicubic, and bilinear with "
        "align_corners=True, are two linear layers with constant weights in 64ths; what leaves the range of the input "
        "saturates. bernoulli2 has neither matrix products nor a transpose to make them of, and its own resize rounds "
        "the distance of two samples down to 1/256 of a pixel: from 64 to 128 with align_corners=True the last sample "
        "would lie half a pixel off, and noise would be off by more (rms 16 steps) than with align_corners=False (9). "
        "So there it is refused.",
    ),
)

"""Largest and smallest value along axes, one axis at a time."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from bpu_fx_fusion import Amax, Amin
from bpu_kernels.ops.reduce import ReduceExtremum

from ..errors import InputError
from ..op import Operator, OpRow, Output
from ..qat_module import QATModule
from ..qtensor import QTensor
from ..quantized_module import QuantizedModule
from .rows import axes_of

__all__ = ["ROWS", "QATExtremum"]


class ExtremumOperator(Operator):
    """``amax`` or ``amin``; integers are only chosen, so the scale stays."""

    own_scale: ClassVar[bool] = False
    keeps_grid: ClassVar[bool] = True
    config: ClassVar[tuple[str, ...]] = ("dim", "keepdim")
    smallest: bool

    dim: Any
    keepdim: bool

    def configure(self, source: Any) -> None:
        """Note the axes, and which end it is."""
        super().configure(source)
        self.smallest = source.smallest if isinstance(source, Operator) else type(source) is Amin  # type: ignore[attr-defined]

    def real(self, *inputs: Tensor) -> Tensor:
        """Choose."""
        choose = torch.amin if self.smallest else torch.amax
        return choose(inputs[0], self.dim, keepdim=self.keepdim)

    def steps(self, out: Output, *inputs: QTensor) -> QTensor:
        """Choose."""
        x: Any = inputs[0]
        axes = axes_of(self.dim, len(x.shape))
        if axes[0] == 0:
            raise InputError(f"{self.label}: nothing is chosen along the batch, got dim={self.dim}")
        for axis in axes:
            kernel = ReduceExtremum(axis=axis, largest=not self.smallest)
            x = x.invoke(kernel, self.row, x, scale=x.scale, dtype=x.dtype)
        rest = [length for axis, length in enumerate(x.shape) if axis not in axes]
        chosen: QTensor = x if self.keepdim else x.reshape(rest)
        return chosen

    def extra_repr(self) -> str:
        """Axes."""
        return f"dim={self.dim}, keepdim={self.keepdim}"


class QuantizedExtremum(ExtremumOperator, QuantizedModule):
    """Largest or smallest of integers."""


class QATExtremum(ExtremumOperator, QATModule):
    """Largest or smallest under quantization-aware training."""

    quantized = QuantizedExtremum


ROWS = (
    OpRow(
        name="amax",
        floats=(Amax, Amin),
        qat=QATExtremum,
        kernels=("reduce_extremum",),
        note="The largest or smallest value along axes.",
    ),
)

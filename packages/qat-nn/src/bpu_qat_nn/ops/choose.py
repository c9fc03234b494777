"""The places of the largest elements (topk, sort, argmax), and elements taken by index (gather)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bpu_fx_fusion import Gather, TopIndices
from bpu_kernels.dtypes import QuantDType, qint8, qint16, qint32
from bpu_kernels.march import MarchRow
from bpu_kernels.ops import choose
from bpu_kernels.ops.reduce import ArgExtremum

from ..errors import InputError
from ..op import Operator, OpRow, Output, type_problems
from ..qat_module import QATModule
from ..qtensor import QTensor, plain
from ..quantized_module import QuantizedModule
from .rescale import rescale, unit_scale, widen

__all__ = ["ROWS", "gather_problems"]


class TopIndicesOperator(Operator):
    """Indices in order, of scale 1: as int32, or in the type of the elements where it is one index."""

    own_scale: ClassVar[bool] = False
    config: ClassVar[tuple[str, ...]] = ("k", "dim", "largest", "keepdim")
    k: int | None
    dim: int
    largest: bool
    keepdim: bool

    def real(self, *inputs: Tensor) -> Tensor:
        """Sort stably."""
        indices: Tensor = TopIndices(self.k, self.dim, self.largest, self.keepdim)(inputs[0])
        return indices

    def steps(self, out: Output, *inputs: QTensor) -> QTensor:
        """Sort stably."""
        x = inputs[0]
        axis = self.dim % len(x.shape)
        if axis == 0:
            raise InputError(f"{self.label}: nothing is chosen along the batch, got dim={self.dim}")
        if self.k is None:
            return self._first(x, axis)
        kernel = choose.TopIndices(axis=axis, k=self.k, largest=self.largest)
        return x.invoke(kernel, self.row, x, scale=unit_scale(x), dtype=qint32)

    def _first(self, x: QTensor, axis: int) -> QTensor:
        """Choose one; its place has the type of the elements, which are widened where that is too narrow."""
        if self.index_dtype(x) is not x.dtype:
            x = widen(self, x)
        kernel = ArgExtremum(axis=axis, largest=self.largest)
        y: Any = x.invoke(kernel, self.row, x, scale=unit_scale(x), dtype=x.dtype)
        chosen: QTensor = y if self.keepdim else y.squeeze(axis)
        return chosen

    def index_dtype(self, x: QTensor) -> QuantDType:
        """Return the type of the indices."""
        if self.k is not None:
            return qint32
        length = int(x.shape[self.dim])
        if length - 1 <= x.dtype.max:
            return x.dtype
        if qint16 not in self.row.activations:
            raise InputError(
                f"{self.label}: {self.row.march} tells a place among {qint8.max + 1} elements at most, got {length}"
            )
        return qint16

    def extra_repr(self) -> str:
        """Which."""
        return f"k={self.k}, dim={self.dim}, largest={self.largest}"


class QuantizedTopIndices(TopIndicesOperator, QuantizedModule):
    """Indices of the largest integers."""


class QATTopIndices(TopIndicesOperator, QATModule):
    """Indices of the largest elements under quantization-aware training; they have no gradient."""

    quantized = QuantizedTopIndices

    def forward(self, *inputs: QTensor) -> QTensor:
        """Choose by the integers; by real values in CALIBRATION."""
        self.expect_quantized(inputs)
        x = inputs[0]
        one = torch.ones_like(x.scale)
        with torch.no_grad():
            if not x.on_grid:
                return QTensor(self.real(plain(x)).to(one.dtype), one, None, self.index_dtype(x), on_grid=False)
            return self.steps(Output(one, self.index_dtype(x)), x.as_steps())

    @classmethod
    def limits(
        cls, module: Any, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """Types of the march, which must have the operator."""
        several = module.k is not None and "top_indices" in row.refused_kernels
        found = ["indices of the largest elements (allowed: one, argmax)"] if several else []
        return [*found, *type_problems(inputs, row.activations)]


def gather_problems(row: MarchRow) -> list[str]:
    """Return why a march takes no elements by index."""
    return ["elements by index"] if "gather" in row.refused_kernels else []


class GatherOperator(Operator):
    """``torch.gather``: integers are only chosen, so the scale stays."""

    own_scale: ClassVar[bool] = False
    keeps_grid: ClassVar[bool] = True
    config: ClassVar[tuple[str, ...]] = ("dim",)
    options: ClassVar[frozenset[str]] = frozenset({"index"})
    dim: int

    def real(self, *inputs: Tensor) -> Tensor:
        """Take."""
        return torch.gather(inputs[0], self.dim, inputs[1].long())

    def steps(self, out: Output, *inputs: QTensor) -> QTensor:
        """Take."""
        x, index = inputs
        axis = self.dim % len(x.shape)
        if axis == 0:
            raise InputError(f"{self.label} expected an axis behind the batch, got dim={self.dim}")
        if index.dtype is qint8:
            index = rescale(self, index, Output(index.scale, qint16))
        kernel = choose.Gather(axis=axis)
        return x.invoke(kernel, self.row, x, index, scale=out.scale, dtype=out.dtype)

    def extra_repr(self) -> str:
        """Axis."""
        return f"dim={self.dim}"


class QuantizedGather(GatherOperator, QuantizedModule):
    """Integers by index."""

    def forward(self, x: QTensor, index: QTensor) -> QTensor:  # type: ignore[override]
        """Take."""
        return super().forward(x, index)


class QATGather(GatherOperator, QATModule):
    """Elements by index under quantization-aware training."""

    quantized = QuantizedGather

    def forward(self, x: QTensor, index: QTensor) -> QTensor:  # type: ignore[override]
        """Take."""
        return super().forward(x, index)

    @classmethod
    def limits(
        cls, module: nn.Module, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """A march that has the operator."""
        return gather_problems(row)


ROWS = (
    OpRow(
        name="top_indices",
        floats=(TopIndices,),
        qat=QATTopIndices,
        kernels=("top_indices", "arg_extremum", "rescale"),
        note="Of topk, sort, argmax, argmin, and max or min along an axis. Indices have scale 1 and 32 bits; a single "
        "one, as of argmax, has the type of the elements, or 16 bits where 8 are too few. Of equal elements the first "
        "comes first. Values are gathered, or those of amax. More indices than one are found by the board's CPU, "
        "inside the compiled model.",
    ),
    OpRow(
        name="gather",
        floats=(Gather,),
        qat=QATGather,
        kernels=("gather", "rescale"),
        note="Indices are results of topk, sort and argmax, or inputs through a QuantStub of scale 1. The board's CPU "
        "gathers, inside the compiled model.",
    ),
)

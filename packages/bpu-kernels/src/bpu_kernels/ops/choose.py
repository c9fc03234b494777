"""Choosing elements by what they hold: the places of the largest (39), and elements taken by index (40)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..dtypes import qint8, qint16, qint32
from ..kernel import IntArray, Kernel, TensorSpec, dtype_problems
from ..march import MarchRow

__all__ = ["Gather", "TopIndices"]


@dataclass(frozen=True, kw_only=True, eq=False)
class TopIndices(Kernel):
    """Where the k largest (or smallest) elements of an axis are, in order (39); of equal ones the first is first."""

    name: ClassVar[str] = "top_indices"

    axis: int
    k: int
    largest: bool = True

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Sort stably."""
        keys = -inputs[0].astype(np.int64) if self.largest else inputs[0]
        order = np.argsort(keys, axis=self.axis, kind="stable").take(range(self.k), axis=self.axis)
        return np.ascontiguousarray(order.astype(np.int32))

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """The axis gets the length k, the type is int32."""
        shape = inputs[0].shape
        if not 0 <= self.axis < len(shape) or not 1 <= self.k <= shape[self.axis]:
            raise self.reject(f"{self.k} elements of axis {self.axis}", *inputs)
        return TensorSpec((*shape[: self.axis], self.k, *shape[self.axis + 1 :]), qint32)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """Types; not along the batch."""
        found = dtype_problems(row, inputs, (qint8, qint16))
        return [*found, "a choice along the batch"] if self.axis == 0 else found


@dataclass(frozen=True, kw_only=True, eq=False)
class Gather(Kernel):
    """Elements of an axis by an index each (40); indices outside stand for the first or last element."""

    name: ClassVar[str] = "gather"
    arity: ClassVar[tuple[int, int]] = (2, 2)

    axis: int

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Take."""
        x, index = inputs
        inside = np.clip(index.astype(np.int64), 0, x.shape[self.axis] - 1)
        return np.ascontiguousarray(np.take_along_axis(x, inside, self.axis))

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """The shape of the index, which is that of the elements but for the axis."""
        x, index, axis = inputs[0], inputs[1], self.axis
        if not 0 <= axis < len(x.shape) or len(index.shape) != len(x.shape):
            raise self.reject(f"axis {axis}", *inputs)
        if any(n != m for i, (n, m) in enumerate(zip(x.shape, index.shape, strict=True)) if i != axis):
            raise self.reject(f"the shapes may differ along axis {axis} only", *inputs)
        return TensorSpec(index.shape, x.dtype)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """Types; indices of 16 or 32 bits; not along the batch."""
        found = dtype_problems(row, inputs[:1], (qint8, qint16, qint32))
        found += dtype_problems(row, inputs[1:], (qint16, qint32))
        return [*found, "indices of the batch"] if self.axis == 0 else found

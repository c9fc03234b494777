"""Concatenation (18): integers are copied, so all inputs must have the output's scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..dtypes import qint8, qint16
from ..kernel import IntArray, Kernel, TensorSpec, dtype_problems
from ..march import MarchRow

__all__ = ["Concat"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Concat(Kernel):
    """Join inputs along one axis of the stored (NHWC) layout."""

    name: ClassVar[str] = "concat"
    keeps_scale: ClassVar[bool] = True
    arity: ClassVar[tuple[int, int]] = (1, 1024)

    axis: int

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Copy."""
        result: IntArray = np.concatenate(inputs, axis=self.axis)
        return result

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """Lengths add up along the axis; all else is equal."""
        first, axis = inputs[0], self.axis
        if not 0 <= axis < len(first.shape):
            raise self.reject(f"axis {axis}", *inputs)
        for other in inputs[1:]:
            same = other.shape[:axis] + other.shape[axis + 1 :] == first.shape[:axis] + first.shape[axis + 1 :]
            if not same or len(other.shape) != len(first.shape) or other.dtype is not first.dtype:
                raise self.reject(f"shapes may differ along axis {axis} only, types not at all", *inputs)
        length = sum(spec.shape[axis] for spec in inputs)
        return TensorSpec((*first.shape[:axis], length, *first.shape[axis + 1 :]), first.dtype)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """Types."""
        return dtype_problems(row, inputs, (qint8, qint16))

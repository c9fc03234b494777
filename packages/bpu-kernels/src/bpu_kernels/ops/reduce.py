"""Sum over one axis (29); a mean has 1/N in its multiplier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..dtypes import qint8
from ..fixed_point import Multiplier, requantize
from ..kernel import IntArray, Kernel, TensorSpec, dtype_problems, parameter_problems
from ..march import MarchRow

__all__ = ["Sum"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sum(Kernel):
    """Sum over one axis, which stays with length 1, then (1); int8."""

    name: ClassVar[str] = "sum"

    axis: int
    multiplier: Multiplier

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Sum in int64, then requantize."""
        total = inputs[0].astype(np.int64).sum(axis=self.axis, keepdims=True)
        result: IntArray = requantize(total, self.multiplier, qint8, rounds=row.rounds).astype(np.int8)
        return result

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """The axis becomes 1."""
        shape = inputs[0].shape
        if not 0 <= self.axis < len(shape):
            raise self.reject(f"axis {self.axis}", *inputs)
        return TensorSpec((*shape[: self.axis], 1, *shape[self.axis + 1 :]), qint8)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """Types, parameter ranges, not over the batch."""
        found = [*parameter_problems(self.multiplier, row), *dtype_problems(row, inputs, (qint8,))]
        if self.axis == 0:
            found.append("sum over the batch")
        return found

"""What becomes of an axis as one: its sum (29), its largest element (48), the place of that (49)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..dtypes import qint8, qint16
from ..fixed_point import Multiplier, requantize
from ..kernel import IntArray, Kernel, TensorSpec, dtype_problems, outside, parameter_problems
from ..march import MarchRow

__all__ = ["ArgExtremum", "ReduceExtremum", "Sum"]


def _without(kernel: Kernel, axis: int, x: TensorSpec) -> tuple[int, ...]:
    """Return a shape whose axis has the length 1."""
    if not 0 <= axis < len(x.shape):
        raise kernel.reject(f"axis {axis}", x)
    return (*x.shape[:axis], 1, *x.shape[axis + 1 :])


def _choice_problems(row: MarchRow, axis: int, x: TensorSpec) -> list[str]:
    """Return what a march cannot choose from: other types, the batch, a long side."""
    found = dtype_problems(row, [x], (qint8, qint16))
    if axis == 0:
        found.append("a choice along the batch")
    if axis < len(x.shape) - 1:
        found += outside("length of the axis", [x.shape[axis]], row.chosen_side)
    return found


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
        return TensorSpec(_without(self, self.axis, inputs[0]), qint8)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """Types, parameter ranges, not over the batch."""
        found = [*parameter_problems(self.multiplier, row), *dtype_problems(row, inputs, (qint8,))]
        if self.axis == 0:
            found.append("sum over the batch")
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class ReduceExtremum(Kernel):
    """The largest (or smallest) element of one axis, which stays with length 1 (48)."""

    name: ClassVar[str] = "reduce_extremum"
    keeps_scale: ClassVar[bool] = True

    axis: int
    largest: bool = True

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Choose."""
        choose = np.max if self.largest else np.min
        result: IntArray = choose(inputs[0], axis=self.axis, keepdims=True)
        return result

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """The axis becomes 1."""
        return TensorSpec(_without(self, self.axis, inputs[0]), inputs[0].dtype)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """Types; not along the batch; no side longer than the march takes."""
        return _choice_problems(row, self.axis, inputs[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class ArgExtremum(Kernel):
    """Where the first largest (or smallest) element of one axis is, in the input's type; the axis stays as 1 (49)."""

    name: ClassVar[str] = "arg_extremum"

    axis: int
    largest: bool = True

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Choose the first."""
        choose = np.argmax if self.largest else np.argmin
        places: IntArray = choose(inputs[0], axis=self.axis, keepdims=True).astype(inputs[0].dtype)
        return places

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """The axis becomes 1."""
        (x,) = inputs
        shape = _without(self, self.axis, x)
        if x.shape[self.axis] - 1 > x.dtype.max:
            raise self.reject(f"its type holds no place among {x.shape[self.axis]}", x)
        return TensorSpec(shape, x.dtype)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """Types; not along the batch; along the channels only where the march asks for it."""
        (x,) = inputs
        found = _choice_problems(row, self.axis, x)
        if not row.moves_freely and self.axis < len(x.shape) - 1:
            found.append("places along an axis that is not the last")
        return found

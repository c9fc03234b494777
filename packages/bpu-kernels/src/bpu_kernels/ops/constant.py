"""Constants: integers that belong to a Program itself, such as an embedding of positions."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from ..dtypes import QuantDType, qint8, qint16
from ..fixed_point import Array
from ..kernel import IntArray, Kernel, TensorSpec, dtype_problems
from ..march import MarchRow

__all__ = ["Constant"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Constant(Kernel):
    """A tensor that does not depend on the inputs."""

    name: ClassVar[str] = "constant"
    arity: ClassVar[tuple[int, int]] = (0, 0)

    values: Array
    """The elements in row-major order."""
    shape: tuple[int, ...]
    dtype: QuantDType = qint8

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Give them their shape."""
        result: IntArray = self.values.reshape(self.shape).astype(self.dtype.numpy)
        return result

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """What it says, if the values fit."""
        if prod(self.shape) != self.values.size:
            raise self.reject(f"{self.values.size} values do not fill {self.shape}")
        if np.any(self.values < self.dtype.min) or np.any(self.values > self.dtype.max):
            raise self.reject(f"values beyond {self.dtype}")
        return TensorSpec(self.shape, self.dtype)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """int8, and int16 where the march has it."""
        return dtype_problems(row, [TensorSpec(self.shape, self.dtype)], (qint8, qint16))

"""Linear layers and matrix products: sums over the last axis, then (1)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from ..dtypes import qint8
from ..fixed_point import Array, Multiplier, requantize
from ..kernel import IntArray, Kernel, TensorSpec, dtype_problems, outside, parameter_problems
from ..march import MarchRow
from ..multiplier import Bias, ResidualScale
from .conv import addend_problems, finish

__all__ = ["Linear", "Matmul"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear(Kernel):
    """``acc = x @ w.T`` over the last axis, bias (5), residual (6), then (1)."""

    name: ClassVar[str] = "linear"
    rank: ClassVar[int] = 0
    arity: ClassVar[tuple[int, int]] = (1, 2)

    weight: Array
    """int8, output features by input features."""
    bias: Bias | None = None
    multiplier: Multiplier
    residual: ResidualScale | None = None
    relu: bool = False

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Multiply in float64, exact below 2**53, then finish as a convolution."""
        acc = (inputs[0].astype(np.float64) @ self.weight.astype(np.float64).T).astype(np.int64)
        return finish(
            acc,
            row,
            multiplier=self.multiplier,
            bias=self.bias,
            residual=self.residual,
            relu=self.relu,
            out=qint8,
            addend=inputs[1] if len(inputs) > 1 else None,
        )

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """The last axis becomes the output features."""
        x = inputs[0]
        if not x.shape or x.shape[-1] != self.weight.shape[1]:
            raise self.reject(f"weights {self.weight.shape} expect {self.weight.shape[1]} features", x)
        if (self.residual is None) != (len(inputs) == 1):
            raise self.reject("a residual input and residual scales belong together", *inputs)
        shape = (*x.shape[:-1], self.weight.shape[0])
        if len(inputs) == 2 and inputs[1].shape != shape:
            raise self.reject(f"the residual must have the output's shape {shape}", *inputs)
        return TensorSpec(shape, qint8)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """Features, types, parameter ranges."""
        found = [*parameter_problems(self.multiplier, row), *dtype_problems(row, inputs[:1], (qint8,))]
        found += addend_problems(row, self.bias, self.residual, qint8, inputs)
        found += outside("input features", [self.weight.shape[1]], row.taps)
        found += outside("output features", [self.weight.shape[0]], row.output_channels)
        return found

    def macs(self, *inputs: TensorSpec) -> int:
        """One per output element and input feature."""
        return prod(inputs[0].shape) * int(self.weight.shape[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class Matmul(Kernel):
    """Batched matrix product of two int8 activations, then (1), int8; leading axes broadcast."""

    name: ClassVar[str] = "matmul"
    arity: ClassVar[tuple[int, int]] = (2, 2)

    multiplier: Multiplier

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Multiply in float64, exact below 2**53, then requantize."""
        acc = (inputs[0].astype(np.float64) @ inputs[1].astype(np.float64)).astype(np.int64)
        y: IntArray = requantize(acc, self.multiplier, qint8, rounds=row.rounds).astype(np.int8)
        return y

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """As ``numpy.matmul`` of operands with two or more axes."""
        x, y = inputs
        if len(x.shape) < 2 or len(y.shape) < 2 or x.shape[-1] != y.shape[-2]:
            raise self.reject("columns of the first must equal rows of the second", x, y)
        return TensorSpec((*self.broadcast(x, y, before=-2), x.shape[-2], y.shape[-1]), qint8)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """Types and parameter ranges."""
        return [*parameter_problems(self.multiplier, row), *dtype_problems(row, inputs, (qint8,))]

    def macs(self, *inputs: TensorSpec) -> int:
        """One per output element and column of the first operand."""
        return prod(self.infer(*inputs).shape) * inputs[0].shape[-1]

"""Elementwise operators: additions (8), (9), product (10), rescale (16), (17), ReLU (19), the larger of two (47)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..dtypes import QuantDType, qint8, qint16
from ..fixed_point import Array, Multiplier, compensation, requantize, rescale, shift_left
from ..kernel import (
    IntArray,
    Kernel,
    TensorSpec,
    compensation_problems,
    dtype_problems,
    outside,
    parameter_problems,
    size_problems,
)
from ..march import MarchRow
from ..multiplier import ResidualScale

__all__ = ["Add", "AddScaled", "Extremum", "Mul", "Reinterpret", "Relu", "Rescale"]


def _pair_problems(row: MarchRow, out: QuantDType, x: TensorSpec, y: TensorSpec) -> list[str]:
    found = dtype_problems(row, (x, y), (qint8, qint16))
    allowed = {(qint8, qint8): qint8, (qint16, qint16): qint16, (qint8, qint16): qint16}
    if not found and allowed.get((x.dtype, y.dtype)) is not out:
        found.append(
            f"{x.dtype} with {y.dtype} to {out} (allowed: int8 pair to int8, int16 pair or int8, int16 to int16)"
        )
    return [*found, *_shape_problems(row, x, y)]


def _shape_problems(row: MarchRow, x: TensorSpec, y: TensorSpec) -> list[str]:
    found: list[str] = []
    if x.shape != y.shape:
        shape = np.broadcast_shapes(x.shape, y.shape)
        if not row.rounds:
            found.append(f"shapes {x.shape} and {y.shape} differ; this march does not broadcast")
        elif shape not in (x.shape, y.shape):
            found.append(f"shapes {x.shape} and {y.shape}; only one operand may broadcast")
        elif len(x.shape) == len(y.shape) and x.shape[0] != y.shape[0]:
            found.append(f"batches {x.shape[0]} and {y.shape[0]}; the batch does not broadcast")
    return found + size_problems(row, x, y)


@dataclass(frozen=True, kw_only=True, eq=False)
class Add(Kernel):
    """Bayes addition (8): ``(x << input_left_shift) + shl(y * sumin_scale, sumin_left_shift)``, then (1).

    A negative sumin_scale subtracts. Types: int8 + int8 to int8, int16 + int16 and int8 + int16 to int16.
    """

    name: ClassVar[str] = "add"
    arity: ClassVar[tuple[int, int]] = (2, 2)

    input_left_shift: Array
    residual: ResidualScale
    multiplier: Multiplier
    out_dtype: QuantDType = qint8

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Evaluate (8) in int64."""
        x, y = (value.astype(np.int64) for value in inputs)
        term = shift_left(y * self.residual.sumin_scale, self.residual.sumin_left_shift.astype(np.int64))
        acc = (x << self.input_left_shift) + term
        result: IntArray = requantize(acc, self.multiplier, self.out_dtype, rounds=row.rounds).astype(
            self.out_dtype.numpy
        )
        return result

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """The operands' broadcast shape."""
        return TensorSpec(self.broadcast(*inputs), self.out_dtype)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """Types, broadcasting, parameter ranges, the difference of the left shifts."""
        found = [*_pair_problems(row, self.out_dtype, *inputs), *parameter_problems(self.multiplier, row)]
        found += outside("sumin_scale", self.residual.sumin_scale, row.add_sumin_scale)
        found += outside("sumin_left_shift", self.residual.sumin_left_shift, row.sumin_left_shift)
        found += outside("input_left_shift", self.input_left_shift, row.input_left_shift)
        wide = all(spec.dtype is qint16 for spec in inputs)
        allowed = row.add_int16_shift_difference if wide else row.add_shift_difference
        difference = np.ravel(self.input_left_shift - self.residual.sumin_left_shift)
        found += outside("input_left_shift - sumin_left_shift", difference, allowed)
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class AddScaled(Kernel):
    """Bernoulli2 addition (9): ``x * input_scale + y * sumin_scale + c``, then (1); int8."""

    name: ClassVar[str] = "add_scaled"
    arity: ClassVar[tuple[int, int]] = (2, 2)

    input_scale: Array
    sumin_scale: Array
    multiplier: Multiplier

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Evaluate (9) in int64; the compiler adds c."""
        x, y = (value.astype(np.int64) for value in inputs)
        acc = x * self.input_scale + y * self.sumin_scale + compensation(self.multiplier)
        result: IntArray = requantize(acc, self.multiplier, qint8, rounds=False).astype(np.int8)
        return result

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """The operands' common shape."""
        return TensorSpec(self.broadcast(*inputs), qint8)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """Types, equal shapes, parameter ranges."""
        found = [*_pair_problems(row, qint8, *inputs), *parameter_problems(self.multiplier, row)]
        found += compensation_problems(self.multiplier, row)
        found += outside("input_scale", self.input_scale, row.input_scale)
        return found + outside("sumin_scale", self.sumin_scale, row.add_sumin_scale)


@dataclass(frozen=True, kw_only=True, eq=False)
class Mul(Kernel):
    """Product (10): ``x * y``, compensated on Bernoulli2, then (1). Types as of ``Add``."""

    name: ClassVar[str] = "mul"
    arity: ClassVar[tuple[int, int]] = (2, 2)

    multiplier: Multiplier
    out_dtype: QuantDType = qint8

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Evaluate (10) in int64."""
        acc = inputs[0].astype(np.int64) * inputs[1].astype(np.int64)
        if row.adds_compensation:
            acc = acc + compensation(self.multiplier)
        result: IntArray = requantize(acc, self.multiplier, self.out_dtype, rounds=row.rounds).astype(
            self.out_dtype.numpy
        )
        return result

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """The operands' broadcast shape."""
        return TensorSpec(self.broadcast(*inputs), self.out_dtype)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """Types, broadcasting, parameter ranges."""
        found = [*_pair_problems(row, self.out_dtype, *inputs), *parameter_problems(self.multiplier, row)]
        return found + compensation_problems(self.multiplier, row)


@dataclass(frozen=True, kw_only=True, eq=False)
class Extremum(Kernel):
    """The larger (or smaller) of two elements of one scale and type (47)."""

    name: ClassVar[str] = "extremum"
    arity: ClassVar[tuple[int, int]] = (2, 2)
    keeps_scale: ClassVar[bool] = True

    largest: bool = True

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Choose."""
        result: IntArray = (np.maximum if self.largest else np.minimum)(*inputs)
        return result

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """The operands' broadcast shape; they have one type."""
        if inputs[0].dtype is not inputs[1].dtype:
            raise self.reject("expected one type", *inputs)
        return TensorSpec(self.broadcast(*inputs), inputs[0].dtype)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """Types, broadcasting, more channels than one where the march asks for them."""
        found = [*dtype_problems(row, inputs, (qint8, qint16)), *_shape_problems(row, *inputs)]
        if not row.moves_freely and inputs[0].shape[-1] == 1:
            found.append("the larger of two maps of one channel")
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Rescale(Kernel):
    """Change of scale (16), (17) between int8 and int16; the multiplier's first shift is 0."""

    name: ClassVar[str] = "rescale"

    multiplier: Multiplier
    out_dtype: QuantDType = qint8

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Evaluate (16) or (17) in int64."""
        y = rescale(inputs[0].astype(np.int64), self.multiplier, self.out_dtype, rounds=row.rounds)
        result: IntArray = y.astype(self.out_dtype.numpy)
        return result

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """The input's shape."""
        return TensorSpec(inputs[0].shape, self.out_dtype)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """Types, parameter ranges, no first shift."""
        found = [*parameter_problems(self.multiplier, row), *dtype_problems(row, inputs, (qint8, qint16))]
        if self.out_dtype not in row.activations:
            found.append(f"output type {self.out_dtype}")
        if np.any(self.multiplier.accu_right_shift):
            found.append("accu_right_shift of a rescale must be 0")
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Relu(Kernel):
    """``max(x, 0)`` (19), int8 only."""

    name: ClassVar[str] = "relu"
    keeps_scale: ClassVar[bool] = True

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Evaluate (19)."""
        result: IntArray = np.maximum(inputs[0], 0)
        return result

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """The input's shape and type."""
        return inputs[0]

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """int8 only."""
        return dtype_problems(row, inputs, (qint8,))


@dataclass(frozen=True, kw_only=True, eq=False)
class Reinterpret(Kernel):
    """The same integers with another scale: multiplication by a positive number. Nothing runs for it."""

    name: ClassVar[str] = "reinterpret"

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Return the input."""
        return inputs[0]

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """The input's shape and type."""
        return inputs[0]

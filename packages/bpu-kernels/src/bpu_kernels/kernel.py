"""What every operator is: its parameters, its integer reference, its shape rule and its limits, in one class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .dtypes import QuantDType, qint32
from .errors import InvalidProgramError
from .fixed_point import Multiplier, compensation
from .march import Limit, MarchRow

__all__ = ["IntArray", "Kernel", "TensorSpec", "compensation_problems", "outside", "parameter_problems"]

IntArray = NDArray[np.signedinteger[Any]]


@dataclass(frozen=True)
class TensorSpec:
    """Shape and type of an activation; feature maps are NHWC (NDHWC for three-dimensional ones)."""

    shape: tuple[int, ...]
    dtype: QuantDType

    def __str__(self) -> str:
        return f"{self.dtype}[{'x'.join(map(str, self.shape))}]"


@dataclass(frozen=True, kw_only=True, eq=False)
class Kernel:
    """An operator with its parameters; the subclasses' fields are what a Program file stores.

    Array fields hold numpy arrays. The torch bridge builds the same classes with tensors in their place, so nothing
    here converts them.
    """

    name: ClassVar[str]
    """Key in ``bpu_kernels.table.KERNELS`` and in Program files."""
    arity: ClassVar[tuple[int, int]] = (1, 1)
    """Least and largest number of activation inputs."""
    rank: ClassVar[int] = 2
    """Number of spatial axes: stride, pad and the like have one entry for each, a weight has two axes more."""
    keeps_scale: ClassVar[bool] = False
    """Whether the output's integers mean what the inputs' do: they are copied, chosen or blended, not requantized."""

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Compute the output's integers from the inputs': the reference."""
        raise NotImplementedError

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """Return shape and type of the output.

        Raises:
            InvalidProgramError: the inputs do not fit the parameters.
        """
        raise NotImplementedError

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """Return what of this the march cannot do, each with value and limit; empty if it can all be done."""
        return []

    def macs(self, *inputs: TensorSpec) -> int:
        """Return the number of multiply-accumulate operations."""
        return 0

    def reject(self, reason: str, *inputs: TensorSpec) -> InvalidProgramError:
        """Return the error that says why these inputs do not fit."""
        given = ", ".join(map(str, inputs)) or "no inputs"
        return InvalidProgramError(f"{self.name} cannot take ({given}): {reason}")

    def broadcast(self, *inputs: TensorSpec, before: int | None = None) -> tuple[int, ...]:
        """Return the common shape of two inputs, of the axes before one; lengths may be symbols, as torch has them.

        Raises:
            InvalidProgramError: there is none.
        """
        rank = max(len(each.shape) for each in inputs)
        first, second = (((1,) * (rank - len(each.shape)) + tuple(each.shape))[:before] for each in inputs)
        pairs = list(zip(first, second, strict=True))
        if not all(n == m or 1 in (n, m) for n, m in pairs):
            raise self.reject("the shapes do not broadcast", *inputs)
        return tuple(m if n == 1 else n for n, m in pairs)

    def expect_rank(self, rank: int, *inputs: TensorSpec) -> None:
        """Raise unless every input has so many dimensions."""
        if any(len(spec.shape) != rank for spec in inputs):
            raise self.reject(f"expected {rank} dimensions", *inputs)


def outside(what: str, values: Iterable[int], limit: Limit) -> list[str]:
    """Return one problem for a parameter if any of its values is outside the limit."""
    bad = sorted({int(value) for value in values if int(value) not in limit})
    if not bad:
        return []
    shown = ", ".join(map(str, bad[:4])) + (", ..." if len(bad) > 4 else "")
    return [f"{what} {shown} (allowed: {limit}; {limit.source})"]


def dtype_problems(row: MarchRow, inputs: Sequence[TensorSpec], allowed: Sequence[QuantDType]) -> list[str]:
    """Return a problem for each input whose type is not among those that operator and march have in common.

    int32 is no type between operators, yet those that only move data take it where they allow it.
    """
    possible = [dtype for dtype in allowed if dtype in row.activations or dtype is qint32]
    return [
        f"input type {spec.dtype} (allowed: {', '.join(map(str, possible))})"
        for spec in inputs
        if spec.dtype not in possible
    ]


def size_problems(row: MarchRow, *tensors: TensorSpec) -> list[str]:
    """Return the problems of tensor sizes that hold for every operator."""
    found: list[str] = []
    for spec in tensors:
        if len(spec.shape) == 4:
            batch, height, width, channels = spec.shape
            found += outside("batch", [batch], row.batch)
            found += outside("height or width", [height, width], row.feature_size)
            found += outside("channels", [channels], row.output_channels)
    return found


def parameter_problems(by: Multiplier, row: MarchRow, *, right_shift: Limit | None = None) -> list[str]:
    """Return which fields of a multiplier are outside the march's ranges."""
    return [
        *outside("accu_right_shift", np.ravel(by.accu_right_shift), row.accu_right_shift),
        *outside("output_scale", np.ravel(by.output_scale), row.output_scale),
        *outside("output_right_shift", np.ravel(by.output_right_shift), right_shift or row.output_right_shift),
    ]


def compensation_problems(by: Multiplier, row: MarchRow) -> list[str]:
    """Return a problem if the constant (11) that the compiler adds leaves 32 bits, where it breaks."""
    if not row.adds_compensation or int(np.max(compensation(by))) < 2**31:
        return []
    return ["a multiplier so small that its compensation (11) leaves 32 bits"]

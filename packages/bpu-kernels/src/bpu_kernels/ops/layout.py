"""Data movement: reshape, transpose, pad and slice copy integers and change no value."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from ..dtypes import qint8, qint16, qint32
from ..kernel import IntArray, Kernel, TensorSpec, dtype_problems
from ..march import MarchRow

__all__ = ["Pad", "Reshape", "Slice", "Transpose"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reshape(Kernel):
    """The same elements in the same (row-major) order under another shape."""

    name: ClassVar[str] = "reshape"
    keeps_scale: ClassVar[bool] = True

    shape: tuple[int, ...]

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Reshape."""
        return inputs[0].reshape(self.shape)

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """The new shape, of as many elements."""
        if prod(inputs[0].shape) != prod(self.shape) or min(self.shape, default=1) < 1:
            raise self.reject(f"{self.shape} has another number of elements", *inputs)
        return TensorSpec(self.shape, inputs[0].dtype)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """At most ten axes; some marches only add and drop axes of length 1."""
        found = [f"{len(self.shape)} dimensions (allowed: 10)"] if len(self.shape) > 10 else []
        before, after = ([n for n in shape if n != 1] for shape in (inputs[0].shape, self.shape))
        if not row.moves_freely and before != after:
            found.append(
                f"reshape from {inputs[0].shape} to {self.shape} (allowed: adding and dropping axes of length 1)"
            )
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Transpose(Kernel):
    """Output axis i is input axis ``axes[i]``."""

    name: ClassVar[str] = "transpose"
    keeps_scale: ClassVar[bool] = True

    axes: tuple[int, ...]

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Transpose."""
        return np.ascontiguousarray(inputs[0].transpose(self.axes))

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """Permute the shape."""
        shape = inputs[0].shape
        if sorted(self.axes) != list(range(len(shape))):
            raise self.reject(f"{self.axes} is no order of its axes", *inputs)
        return TensorSpec(tuple(shape[axis] for axis in self.axes), inputs[0].dtype)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """The batch stays in front."""
        found = dtype_problems(row, inputs, (qint8, qint16, qint32))
        return found + ([f"axes {self.axes} move the batch"] if self.axes[:1] != (0,) else [])


@dataclass(frozen=True, kw_only=True, eq=False)
class Pad(Kernel):
    """Surround with a constant, or with copies of the edge."""

    name: ClassVar[str] = "pad"
    keeps_scale: ClassVar[bool] = True

    before: tuple[int, ...]
    """Elements in front, per axis of the stored layout."""
    after: tuple[int, ...]
    value: int = 0
    mode: str = "constant"
    """"constant" or "edge"."""

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Pad."""
        widths = list(zip(self.before, self.after, strict=True))
        if self.mode == "edge":
            return np.pad(inputs[0], widths, mode="edge")
        return np.pad(inputs[0], widths, constant_values=self.value)

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """Lengths grow by what is added."""
        x = inputs[0]
        if not len(self.before) == len(self.after) == len(x.shape) or min(*self.before, *self.after) < 0:
            raise self.reject(f"pads {self.before}, {self.after}", *inputs)
        if self.mode not in ("constant", "edge") or not x.dtype.min <= self.value <= x.dtype.max:
            raise self.reject(f"mode {self.mode!r}, value {self.value}", *inputs)
        return TensorSpec(tuple(map(sum, zip(x.shape, self.before, self.after, strict=True))), x.dtype)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """Not along the batch; on some marches only along height and width, and with a constant."""
        found = dtype_problems(row, inputs, (qint8, qint16))
        if self.before[0] or self.after[0]:
            found.append("padding of the batch")
        if not row.moves_freely and (self.before[-1] or self.after[-1]):
            found.append("padding of the channels")
        if not row.moves_freely and self.mode == "edge":
            found.append("padding with copies of the edge")
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Slice(Kernel):
    """Elements ``start, start + step, ...`` below ``stop`` of every axis."""

    name: ClassVar[str] = "slice"
    keeps_scale: ClassVar[bool] = True

    start: tuple[int, ...]
    stop: tuple[int, ...]
    step: tuple[int, ...]

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Slice."""
        window = tuple(map(slice, self.start, self.stop, self.step))
        return np.ascontiguousarray(inputs[0][window])

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """Count the elements taken per axis."""
        x = inputs[0]
        if not len(self.start) == len(self.stop) == len(self.step) == len(x.shape):
            raise self.reject("start, stop and step need one entry per axis", *inputs)
        triples = list(zip(self.start, self.stop, self.step, x.shape, strict=True))
        if any(step < 1 or not 0 <= start < stop <= n for start, stop, step, n in triples):
            raise self.reject(f"window {self.start}:{self.stop}:{self.step} is empty or outside", *inputs)
        return TensorSpec(tuple(len(range(a, b, c)) for a, b, c, _ in triples), x.dtype)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """Types; on some marches not along the batch."""
        found = dtype_problems(row, inputs, (qint8, qint16, qint32))
        if not row.moves_freely and (self.start[0], self.stop[0], self.step[0]) != (0, inputs[0].shape[0], 1):
            found.append("slice of the batch")
        return found

"""Lookup tables: 256 entries for int8 (20), segments with interpolation for int16 (21) to (24)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..dtypes import qint8, qint16
from ..fixed_point import Array, half, saturate
from ..kernel import IntArray, Kernel, TensorSpec, dtype_problems
from ..march import MarchRow

__all__ = ["Lut8", "Lut16", "SegmentLine", "lut16"]

ZONES = 6
ENTRIES = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Lut8(Kernel):
    """``y = table[x + 128]`` (20)."""

    name: ClassVar[str] = "lut8"

    table: Array
    """256 int8 values."""

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Look up."""
        result: IntArray = self.table[inputs[0].astype(np.int64) + 128]
        return result

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """The input's shape, int8."""
        if tuple(self.table.shape) != (256,):
            raise self.reject(f"the table has shape {tuple(self.table.shape)}, not (256,)", *inputs)
        return TensorSpec(inputs[0].shape, qint8)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """int8 only."""
        return dtype_problems(row, inputs, (qint8,))


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentLine:
    """Eight lines ``(k * x + (b << add_lsh)) >> sum_rsh``: left, six zones, right; each holds up to ``x <= max``.

    Every field is an array of 8 integers; ``max`` of the last counts for nothing.
    """

    k: Array
    b: Array
    add_lsh: Array
    sum_rsh: Array
    max: Array


def lut16(x: Array, line: SegmentLine, tables: Array, *, rounds: bool, xp: Any = np) -> Array:
    """Equations (21) to (24) on int64 values in int16's range; returns int64."""
    last = ZONES + 1
    segment = xp.zeros_like(x) + last
    for index in reversed(range(last)):  # the first in order wins
        segment = xp.where(x <= line.max[index], index, segment)
    shift = line.sum_rsh[segment]
    linear = line.k[segment] * x + (line.b[segment] << line.add_lsh[segment])
    linear = (linear + half(shift, xp) if rounds else linear) >> shift
    position = xp.clip(linear, 0, (ENTRIES - 1) << 8)
    entry = xp.clip(position >> 8, 0, ENTRIES - 2)
    fraction = position - (entry << 8)
    flat = (xp.clip(segment, 1, ZONES) - 1) * ENTRIES + entry
    values = tables.reshape(-1)
    low = values[flat]
    rise = ((values[flat + 1] - low + (1 << 15)) & 0xFFFF) - (1 << 15)  # wrap_16
    between = (low << 8) + rise * fraction
    between = (between + 128 if rounds else between) >> 8
    inside = (segment > 0) & (segment < last)
    return saturate(xp.where(inside, between, linear), 16, xp)


@dataclass(frozen=True, kw_only=True, eq=False)
class Lut16(Kernel):
    """Segment table, int16 to int16: two lines outside, six interpolated tables of 64 entries inside."""

    name: ClassVar[str] = "lut16"

    line: SegmentLine
    tables: Array
    """6 x 64 int16 values."""
    rounds: bool = True
    """Whether shifts round half up (round_mode 2) or floor (1)."""

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Evaluate in int64."""
        line = SegmentLine(**{name: np.asarray(value, np.int64) for name, value in vars(self.line).items()})
        y = lut16(inputs[0].astype(np.int64), line, self.tables.astype(np.int64), rounds=self.rounds)
        result: IntArray = y.astype(np.int16)
        return result

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """The input's shape, int16."""
        if tuple(self.tables.shape) != (ZONES, ENTRIES) or any(
            len(value) != ZONES + 2 for value in vars(self.line).values()
        ):
            raise self.reject("expected 6 tables of 64 entries and 8 lines", *inputs)
        return TensorSpec(inputs[0].shape, qint16)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """int16 only; lines and neighbouring entries within the range that was measured (section 7)."""
        found = dtype_problems(row, inputs, (qint16,))
        line = {name: np.asarray(value, np.int64) for name, value in vars(self.line).items()}
        for name in ("k", "b"):
            if np.any(line[name] != saturate(line[name], 16)):
                found.append(f"{name} of a line outside int16")
        shifts = np.concatenate([line["add_lsh"], line["sum_rsh"]])
        if np.any((shifts < 0) | (shifts > 31)):
            found.append("shift of a line outside 0..31")
        elif np.any(np.abs(line["k"]) * 2**15 + (np.abs(line["b"]) << line["add_lsh"]) >= 2**31):
            found.append("k * x + (b << add_lsh) of a line beyond 32 bits")
        if np.any(np.diff(line["max"][:-1]) < 0):
            found.append("max of the lines does not ascend")
        if np.any(np.abs(np.diff(np.asarray(self.tables, np.int64), axis=1)) >= 2**15):
            found.append("neighbouring table entries 2**15 or more apart")
        return found

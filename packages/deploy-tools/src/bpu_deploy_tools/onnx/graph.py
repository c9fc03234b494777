"""Graph: an ONNX graph that is being built, with the integer arithmetic of the BPU in terms of ONNX operators.

Sums and products are int64, so that nothing overflows. ONNX has no arithmetic shift: a floor shift by s is written as
``(x - x mod 2**s) / 2**s``, where the integer ``Mod`` has the divisor's sign and the division leaves no remainder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from bpu_kernels.dtypes import QuantDType
from bpu_kernels.fixed_point import Multiplier, half

__all__ = ["TYPES", "Graph"]

TYPES = {8: TensorProto.INT8, 16: TensorProto.INT16, 32: TensorProto.INT32}
"""Bits -> ONNX type."""
_DOMAIN_OF_INT64 = 62
"""Shifts up to here fit the divisor into int64."""


class Graph:
    """Nodes and constants; methods append nodes and return the name of what these make."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        """Begin with names that are taken: those of the inputs."""
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.scope = ""
        """Path of the Program's node whose operators are being appended."""
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._transposed: dict[str, tuple[str, tuple[int, ...]]] = {}
        self._taken: dict[str, int] = dict.fromkeys(taken, 1)

    @property
    def taken(self) -> set[str]:
        """Names that something has."""
        return {*(name for node in self.nodes for name in node.output), *(each.name for each in self.initializers)}

    def name(self, what: str) -> str:
        """Return a new name below the current scope."""
        wanted = f"{self.scope}/{what}" if self.scope else what
        number = self._taken.get(wanted, 0)
        self._taken[wanted] = number + 1
        return f"{wanted}_{number}" if number else wanted

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Append a node of one output."""
        output = self.name(op)
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def second(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Append a node of two outputs, of which the second is wanted."""
        outputs = [self.name(f"{op}_values"), self.name(op)]
        self.nodes.append(helper.make_node(op, list(inputs), outputs, name=outputs[1], **attributes))
        return outputs[1]

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        """Return a constant, shared among equal ones."""
        array = np.ascontiguousarray(values, dtype).reshape(np.shape(values))
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.own_constant(array)
        return self._constants[key]

    def own_constant(self, array: np.ndarray) -> str:
        """Return a constant that one node alone reads."""
        name = self.name("constant")
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    # Moving

    def transpose(self, x: str, axes: Sequence[int]) -> str:
        """Reorder axes; two in a row that cancel out leave nothing behind."""
        source, before = self._transposed.get(x, (x, tuple(range(len(axes)))))
        together = tuple(before[axis] for axis in axes)
        if together == tuple(range(len(axes))):
            return source
        y = self.add("Transpose", source, perm=list(together))
        self._transposed[y] = (source, together)
        return y

    def channels_first(self, x: str, rank: int) -> str:
        """(N, ..., C) -> (N, C, ...)."""
        return self.transpose(x, (0, rank - 1, *range(1, rank - 1)))

    def channels_last(self, x: str, rank: int) -> str:
        """(N, C, ...) -> (N, ..., C)."""
        return self.transpose(x, (0, *range(2, rank), 1))

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """Give another shape."""
        return self.add("Reshape", x, self.constant(list(shape)))

    def slice(self, x: str, start: Sequence[int], stop: Sequence[int], step: Sequence[int]) -> str:
        """Take a window of all axes."""
        axes = list(range(len(start)))
        return self.add("Slice", x, *map(self.constant, (list(start), list(stop), axes, list(step))))

    # Types

    def cast(self, x: str, bits: int) -> str:
        """Convert to a signed integer of so many bits."""
        return self.add("Cast", x, to=TensorProto.INT64 if bits == 64 else TYPES[bits])

    def wide(self, x: str) -> str:
        """Convert to int64."""
        return self.cast(x, 64)

    # Arithmetic on int64

    def shift_right(self, x: str, shift: Any) -> str:
        """Floor shift by constants, of a shape that broadcasts; nothing where all are 0."""
        shifts = np.asarray(shift, np.int64)
        if not shifts.any():
            return x
        divisor = self.constant(np.int64(1) << np.minimum(shifts, _DOMAIN_OF_INT64))
        return self.floor_divide(x, divisor)

    def floor_divide(self, x: str, divisor: str) -> str:
        """Divide by positive numbers, rounding down."""
        return self.add("Div", self.add("Sub", x, self.add("Mod", x, divisor)), divisor)

    def times(self, x: str, factor: Any) -> str:
        """Multiply by constants; nothing where all are 1."""
        return x if np.all(np.asarray(factor) == 1) else self.add("Mul", x, self.constant(factor))

    def plus(self, x: str, addend: Any) -> str:
        """Add constants; nothing where all are 0."""
        return self.add("Add", x, self.constant(addend)) if np.any(addend) else x

    def saturate(self, x: str, bits: int) -> str:
        """Clamp to a signed range."""
        low, high = (self.constant(np.int64(bound)) for bound in (-(1 << (bits - 1)), (1 << (bits - 1)) - 1))
        return self.add("Clip", x, low, high)

    def wrap(self, x: str, bits: int) -> str:
        """Keep the low bits as a signed number."""
        offset = np.int64(1 << (bits - 1))
        low = self.add("Mod", self.plus(x, offset), self.constant(np.int64(1 << bits)))
        return self.plus(low, -offset)

    def shift_left(self, x: str, shift: Any) -> str:
        """Shift left by constants, or right with floor where they are negative."""
        shifts = np.asarray(shift, np.int64)
        return self.shift_right(self.times(x, np.int64(1) << np.maximum(shifts, 0)), np.maximum(-shifts, 0))

    def requantize(self, acc: str, by: Multiplier, out: QuantDType, *, rounds: bool) -> str:
        """Equation (1), from int64 to the output's type."""
        first = self.saturate(self.shift_right(acc, by.accu_right_shift), 16)
        return self.scaled(first, by, out.bits, rounds=rounds)

    def scaled(self, x: str, by: Multiplier, bits: int, *, rounds: bool) -> str:
        """Multiply, shift, saturate, narrow: the second half of (1), (12), (16)."""
        product = self.times(x, np.asarray(by.output_scale, np.int64))
        if rounds:
            product = self.plus(product, half(np.asarray(by.output_right_shift, np.int64)))
        return self.cast(self.saturate(self.shift_right(product, by.output_right_shift), bits), bits)

    def requantize_wide(self, acc: str, shift: Any, *, rounds: bool) -> str:
        """Equation (2), from int64 to int32."""
        if rounds:
            acc = self.plus(acc, half(np.asarray(shift, np.int64)))
        return self.cast(self.saturate(self.shift_right(acc, shift), 32), 32)

    def without_unused(self, outputs: Sequence[str]) -> tuple[list[NodeProto], list[TensorProto]]:
        """Return the nodes and constants that the outputs need."""
        needed, kept = set(outputs), []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        return kept[::-1], [each for each in self.initializers if each.name in needed]

"""Words: how a plan reaches the library, as a list of int64 and a block of constants; native/src/words.h reads them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..dtypes import QuantDType, qint32
from ..fixed_point import Multiplier
from ..kernel import TensorSpec
from ..multiplier import ResidualScale
from .storage import Placed

__all__ = ["Words", "broadcast_strides"]

ALIGNMENT = 64


class Words:
    """Grows by numbers, lists, tensors and arrays."""

    def __init__(self) -> None:
        self.words: list[int] = []
        self.steps = 0
        self.constants = bytearray()

    def begin(self, opcode: int) -> None:
        """Start a step."""
        self.steps += 1
        self.numbers(opcode)

    def numbers(self, *values: int) -> None:
        """Append numbers as they are."""
        self.words += map(int, values)

    def list(self, values: Iterable[int]) -> None:
        """Append a list: its length, then its entries."""
        entries = list(map(int, values))
        self.words += [len(entries), *entries]

    def tensor(self, placed: Placed, shape: tuple[int, ...] | None = None) -> None:
        """Append a tensor, seen under another shape of the same last axis where one is given."""
        self.numbers(placed.space, placed.index, placed.offset, placed.spec.dtype.bits // 8, placed.pitch)
        self.list(placed.spec.shape if shape is None else shape)

    def dense(self, placed: Placed, shape: tuple[int, ...]) -> None:
        """Append a tensor without gaps, seen under any shape of as many elements."""
        self.tensor(dataclasses.replace(placed, pitch=shape[-1]), shape)

    def array(self, values: Any, dtype: str) -> None:
        """Append an array of constants."""
        stored = np.ascontiguousarray(values, dtype)
        self.constants += bytes(-len(self.constants) % ALIGNMENT)
        self.numbers(len(self.constants), stored.size)
        self.constants += stored.tobytes()

    def per_channel(self, values: Any, channels: int, dtype: str = "int32") -> None:
        """Append a parameter of length 1 or C as one entry per channel."""
        self.array(np.broadcast_to(values, channels), dtype)

    def requantizer(
        self,
        by: Multiplier,
        channels: int,
        out: QuantDType,
        *,
        rounds: bool,
        before: Any = 0,
        relu: bool = False,
        saturates_between: bool = True,
    ) -> None:
        """Append a requantization; ``before`` is added to the accumulator (native/src/requantize.h)."""
        self.per_channel(before, channels, "int64")
        self.per_channel(by.accu_right_shift, channels)
        self.per_channel(by.output_scale, channels)
        self.per_channel(by.output_right_shift, channels)
        self.numbers(rounds, saturates_between, out is qint32, relu, out.bits)

    def residual(self, scale: ResidualScale | None, placed: Placed | None, shape: tuple[int, ...]) -> None:
        """Append the residual of a layer with weights, or that there is none."""
        self.numbers(scale is not None)
        if scale is not None:
            assert placed is not None
            self.tensor(placed, shape)
            self.per_channel(scale.sumin_scale, shape[-1])
            self.per_channel(scale.sumin_left_shift, shape[-1])


def broadcast_strides(placed: Placed, out: TensorSpec) -> tuple[int, ...]:
    """Return strides with which a tensor is read at the output's shape: 0 along what it repeats."""
    missing = len(out.shape) - len(placed.spec.shape)
    lengths = (1,) * missing + placed.spec.shape
    strides = (0,) * missing + placed.strides
    return tuple(
        0 if length == 1 and size != 1 else stride
        for length, size, stride in zip(lengths, out.shape, strides, strict=True)
    )

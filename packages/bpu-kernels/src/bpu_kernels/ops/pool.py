"""Pooling: average (12), (13), global average (14), maximum (15)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..dtypes import qint8
from ..fixed_point import Multiplier, requantize, requantize_pool
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

__all__ = ["AvgPool2d", "GlobalAvgPool2d", "MaxPool2d"]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Window(Kernel):
    """A square or rectangular window that moves over height and width."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...] = (0, 0)
    ceil_mode: bool = False
    """Whether a last window that only partly fits still counts, as in torch."""

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """Usual pooling arithmetic; a window must start inside the input or its left padding."""
        x = inputs[0]
        self.expect_rank(4, x)
        spatial = []
        for n, k, s, p in zip(x.shape[1:3], self.kernel, self.stride, self.pad, strict=True):
            size = (n + 2 * p - k + (s - 1 if self.ceil_mode else 0)) // s + 1
            if self.ceil_mode and (size - 1) * s >= n + p:
                size -= 1
            spatial.append(size)
        if min(spatial) < 1:
            raise self.reject(f"a window of {self.kernel} does not fit", x)
        return TensorSpec((x.shape[0], *spatial, x.shape[3]), x.dtype)

    def window_problems(self, row: MarchRow, x: TensorSpec) -> list[str]:
        """Return what the march does otherwise: it keeps a last window that starts behind the input."""
        found = size_problems(row, x)
        behind = [
            -(-(n + 2 * p - k) // s) * s >= n + p
            for n, k, s, p in zip(x.shape[1:3], self.kernel, self.stride, self.pad, strict=True)
        ]
        if self.ceil_mode and any(behind):
            found.append(f"ceil_mode with a last window behind the input (kernel {self.kernel}, stride {self.stride})")
        return found + outside("stride", self.stride, row.pool_stride)

    def taps(self, x: IntArray, fill: int) -> Iterator[IntArray]:
        """Yield, for each position in the window, the input seen from it by every output element."""
        _, rows, columns, _ = self.infer(TensorSpec(x.shape, qint8)).shape
        reach = [
            (size - 1) * s + k - n - p
            for size, s, k, n, p in zip((rows, columns), self.stride, self.kernel, x.shape[1:3], self.pad, strict=True)
        ]
        after = [max(r, p) for r, p in zip(reach, self.pad, strict=True)]
        padded = np.pad(x, [(0, 0), (self.pad[0], after[0]), (self.pad[1], after[1]), (0, 0)], constant_values=fill)
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                yield padded[
                    :,
                    i : i + (rows - 1) * self.stride[0] + 1 : self.stride[0],
                    j : j + (columns - 1) * self.stride[1] + 1 : self.stride[1],
                ]


@dataclass(frozen=True, kw_only=True, eq=False)
class AvgPool2d(_Window):
    """Average of a window, zero padding counted; the divisor sits in the multiplier."""

    name: ClassVar[str] = "avg_pool2d"

    multiplier: Multiplier

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Sum the window, then (12) or (13)."""
        total = sum(tap.astype(np.int64) for tap in self.taps(inputs[0], 0))
        result: IntArray = requantize_pool(total, self.multiplier, rounds=row.rounds).astype(np.int8)
        return result

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """Window, stride, types and parameter ranges."""
        found = [*parameter_problems(self.multiplier, row), *dtype_problems(row, inputs, (qint8,))]
        found += compensation_problems(self.multiplier, row)
        found += outside("kernel", self.kernel, row.avg_pool_kernel)
        found += outside("window elements", [self.kernel[0] * self.kernel[1]], row.avg_pool_taps)
        return found + self.window_problems(row, inputs[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class GlobalAvgPool2d(Kernel):
    """Average over height and width, kept as axes of length 1; the divisor sits in the multiplier."""

    name: ClassVar[str] = "global_avg_pool2d"

    multiplier: Multiplier

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Sum the map, then (14): Bayes as average pooling, Bernoulli2 flooring without compensation."""
        total = inputs[0].astype(np.int64).sum(axis=(1, 2), keepdims=True)
        if row.rounds:
            y = requantize_pool(total, self.multiplier, rounds=True)
        else:
            y = requantize(total, self.multiplier, qint8, rounds=False)
        result: IntArray = y.astype(np.int8)
        return result

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """Height and width become 1."""
        self.expect_rank(4, *inputs)
        batch, _, _, channels = inputs[0].shape
        return TensorSpec((batch, 1, 1, channels), qint8)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """Size of the map, types and parameter ranges."""
        found = parameter_problems(self.multiplier, row, right_shift=row.global_pool_right_shift)
        found += outside("height or width", inputs[0].shape[1:3], row.global_pool_size)
        return found + dtype_problems(row, inputs, (qint8,))


@dataclass(frozen=True, kw_only=True, eq=False)
class MaxPool2d(_Window):
    """Largest value of a window (15); padding is -128."""

    name: ClassVar[str] = "max_pool2d"
    keeps_scale: ClassVar[bool] = True

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Take the maximum over the window's positions."""
        result: IntArray = np.maximum.reduce(list(self.taps(inputs[0], qint8.min)))
        return result

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """Window, stride and types."""
        found = outside("kernel", self.kernel, row.max_pool_kernel)
        return found + dtype_problems(row, inputs, (qint8,)) + self.window_problems(row, inputs[0])

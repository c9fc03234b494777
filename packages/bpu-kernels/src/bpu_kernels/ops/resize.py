"""Resizing feature maps: bilinear (25) to (28), and nearest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..dtypes import qint8
from ..fixed_point import Array
from ..kernel import IntArray, Kernel, TensorSpec, dtype_problems, size_problems
from ..march import MarchRow

__all__ = ["ResizeBilinear", "ResizeNearest", "blend_legacy", "blend_new", "sample_positions"]


def sample_positions(length: int, size: int, *, align: str, precision: int) -> tuple[Any, Any, Any]:
    """Return (first index, second index, 8-bit weight of the second) of every output position: (25), (26)."""
    step = (length << precision) // size
    offset = (step - (1 << precision)) >> 1 if align == "center" else 0
    position = np.arange(size, dtype=np.int64) * step + offset
    first = np.clip(position >> precision, 0, length - 1)
    second = np.clip((position >> precision) + 1, 0, length - 1)
    return first, second, (position & ((1 << precision) - 1)) >> (precision - 8)


def blend_legacy(corners: tuple[Array, Array, Array, Array], fy: Array, fx: Array) -> Array:
    """Equation (27): blend two rows, each floored, then the rows; corners are top left, top right, then bottom."""
    top = (corners[0] * (256 - fx) + corners[1] * fx) >> 8
    bottom = (corners[2] * (256 - fx) + corners[3] * fx) >> 8
    return (top * (256 - fy) + bottom * fy) >> 8


def blend_new(corners: tuple[Array, Array, Array, Array], fy: Array, fx: Array) -> Array:
    """Equation (28): weighted sum of the corners, rounded half up once."""
    top = corners[0] * (256 - fx) + corners[1] * fx
    bottom = corners[2] * (256 - fx) + corners[3] * fx
    return (top * (256 - fy) + bottom * fy + (1 << 15)) >> 16


@dataclass(frozen=True, kw_only=True, eq=False)
class ResizeBilinear(Kernel):
    """Bilinear resize of int8; "center" is torch's ``align_corners=False``, "origin" lines up the first samples.

    No blend leaves int8: every weight is nonnegative and the weights of a sample add up to the divisor.
    """

    name: ClassVar[str] = "resize_bilinear"
    keeps_scale: ClassVar[bool] = True

    size: tuple[int, ...]
    """Output height and width."""
    align: str = "center"
    precision: int = 8
    """Fractional bits of the positions, 8 or 16."""
    legacy: bool = True

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Gather four corners, blend in int64."""
        x = inputs[0].astype(np.int64)
        y0, y1, fy = sample_positions(x.shape[1], self.size[0], align=self.align, precision=self.precision)
        x0, x1, fx = sample_positions(x.shape[2], self.size[1], align=self.align, precision=self.precision)
        top, bottom = x[:, y0], x[:, y1]
        corners = (top[:, :, x0], top[:, :, x1], bottom[:, :, x0], bottom[:, :, x1])
        blend = blend_legacy if self.legacy else blend_new
        result: IntArray = blend(corners, fy[:, None, None], fx[:, None]).astype(np.int8)
        return result

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """Batch and channels stay."""
        self.expect_rank(4, *inputs)
        batch, _, _, channels = inputs[0].shape
        if self.align not in ("center", "origin") or self.precision not in (8, 16):
            raise self.reject(f"align {self.align!r}, precision {self.precision}", *inputs)
        return TensorSpec((batch, *self.size, channels), inputs[0].dtype)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """Mode and ratio of section 13."""
        found = [*dtype_problems(row, inputs, (qint8,)), *ratio_problems(row, inputs[0], self.size)]
        if (self.legacy, self.precision) not in row.resize_modes:
            found.append(f"mode (legacy, precision) {(self.legacy, self.precision)} (allowed: {row.resize_modes})")
        return found + size_problems(row, *inputs)


def ratio_problems(row: MarchRow, x: TensorSpec, size: tuple[int, ...]) -> list[str]:
    """Return a problem if an axis shrinks or grows by more than the march can."""
    shrink, grow = row.resize_ratio
    return [
        f"resize from {n} to {m} (allowed: down to 1/{shrink}, up to {grow} times)"
        for n, m in zip(x.shape[1:3], size, strict=True)
        if m * shrink < n or m > n * grow
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class ResizeNearest(Kernel):
    """Nearest resize: output position j takes input ``floor(j * in / out)``, torch's rule, in exact integers."""

    name: ClassVar[str] = "resize_nearest"
    keeps_scale: ClassVar[bool] = True

    size: tuple[int, ...]

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Copy the chosen rows and columns."""
        x = inputs[0]
        rows = np.arange(self.size[0]) * x.shape[1] // self.size[0]
        columns = np.arange(self.size[1]) * x.shape[2] // self.size[1]
        return x[:, rows][:, :, columns]

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """Batch and channels stay."""
        self.expect_rank(4, *inputs)
        batch, _, _, channels = inputs[0].shape
        return TensorSpec((batch, *self.size, channels), inputs[0].dtype)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """Whole factors that the march has; int8."""
        found = [*dtype_problems(row, inputs, (qint8,)), *size_problems(row, *inputs)]
        return found + nearest_problems(row, inputs[0].shape[1:3], self.size)


def nearest_problems(row: MarchRow, shape: tuple[int, ...], size: tuple[int, ...]) -> list[str]:
    """Return a problem if a nearest resize does not repeat every element so many times as the march can."""
    factors = [m // n if m % n == 0 else None for n, m in zip(shape, size, strict=True)]
    if any(factor not in row.nearest_factor for factor in factors):
        return [f"nearest resize from {tuple(shape)} to {size} (allowed factors: {row.nearest_factor})"]
    if row.wider_than_high and size[0] * shape[1] > size[1] * shape[0]:
        return [f"nearest resize from {tuple(shape)} to {size}, growing more in height than in width"]
    return []

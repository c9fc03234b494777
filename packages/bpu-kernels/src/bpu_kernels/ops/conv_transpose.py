"""Transposed convolution: each input element scatters its product with the kernel (numerics.md, section 3)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from ..dtypes import QuantDType, qint8
from ..fixed_point import Array, Multiplier
from ..kernel import IntArray, Kernel, TensorSpec, dtype_problems, outside, parameter_problems, size_problems
from ..march import MarchRow
from ..multiplier import Bias, ResidualScale
from .conv import addend_problems, contract, finish

__all__ = ["ConvTranspose2d", "conv_transpose2d_limits", "padding_problems"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ConvTranspose2d(Kernel):
    """``acc[y * s + i - p, x * s + j - p, o] += x[y, x, c] * w[c, i, j, o]``, bias (5), residual (6), then (1)."""

    name: ClassVar[str] = "conv_transpose2d"
    arity: ClassVar[tuple[int, int]] = (1, 2)

    weight: Array
    """int8, I, kernel, O / groups; the kernel is not flipped."""
    bias: Bias | None = None
    multiplier: Multiplier
    residual: ResidualScale | None = None
    stride: tuple[int, ...] = (1, 1)
    pad: tuple[int, ...] = (0, 0)
    output_padding: tuple[int, ...] = (0, 0)
    groups: int = 1
    relu: bool = False

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Scatter into the uncropped accumulator, crop, then finish as a convolution."""
        x = inputs[0]
        batch, height, width, _ = self._output_shape(x.shape)
        kernel = self.weight.shape[1:3]
        channels, per_group = self.weight.shape[0], self.weight.shape[3]
        weight = self.weight.astype(np.float64).reshape(self.groups, channels // self.groups, *kernel, per_group)
        weight = weight.transpose(0, 4, 2, 3, 1).reshape(-1, *kernel, channels // self.groups)  # as of a convolution
        extent = [n + 2 * p + k for n, p, k in zip((height, width), self.pad, kernel, strict=True)]
        full = np.zeros((batch, *extent, per_group * self.groups))
        for i, j in itertools.product(*map(range, kernel)):
            rows = slice(i, i + (x.shape[1] - 1) * self.stride[0] + 1, self.stride[0])
            columns = slice(j, j + (x.shape[2] - 1) * self.stride[1] + 1, self.stride[1])
            full[:, rows, columns] += contract(x.astype(np.float64), weight[:, i, j], self.groups)
        top, left = self.pad
        acc = full[:, top : top + height, left : left + width].astype(np.int64)
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

    def _output_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        height, width = (
            (n - 1) * s - 2 * p + k + o
            for n, s, p, k, o in zip(
                shape[1:3], self.stride, self.pad, self.weight.shape[1:3], self.output_padding, strict=True
            )
        )
        return shape[0], height, width, self.weight.shape[3] * self.groups

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """``(n - 1) * stride - 2 * pad + kernel + output_padding`` per axis."""
        x = inputs[0]
        self.expect_rank(4, x)
        if x.shape[-1] != self.weight.shape[0] or x.shape[-1] % self.groups:
            raise self.reject(
                f"weights {self.weight.shape} in {self.groups} groups expect {self.weight.shape[0]} channels", x
            )
        if (self.residual is None) != (len(inputs) == 1):
            raise self.reject("a residual input and residual scales belong together", *inputs)
        shape = self._output_shape(x.shape)
        if min(shape) < 1 or (len(inputs) == 2 and inputs[1].shape != shape):
            raise self.reject(f"the output's shape is {shape}, which the residual must have", *inputs)
        return TensorSpec(shape, qint8)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """Kernel, stride, pad, groups and parameter ranges of section 13."""
        limits = conv_transpose2d_limits(
            row,
            kernel=tuple(self.weight.shape[1:3]),
            stride=self.stride,
            pad=self.pad,
            output_padding=self.output_padding,
            dilation=(1, 1),
            x=inputs[0].dtype,
        )
        found = [*limits, *parameter_problems(self.multiplier, row), *size_problems(row, inputs[0])]
        return found + addend_problems(row, self.bias, self.residual, qint8, inputs)

    def macs(self, *inputs: TensorSpec) -> int:
        """One per input element, tap and output channel of its group."""
        return prod(inputs[0].shape) * int(prod(self.weight.shape[1:]))


def padding_problems(kernel: tuple[int, ...], stride: tuple[int, ...], pad: tuple[int, ...]) -> list[str]:
    """Return which paddings the hardware gets wrong or lacks; cutting edges off the unpadded result replaces them."""
    found = []
    if any(p > k // s for p, k, s in zip(pad, kernel, stride, strict=True)):
        found.append(f"padding {pad} (allowed: kernel {kernel} divided by stride {stride})")
    if any(2 * p % s for p, s in zip(pad, stride, strict=True)):
        found.append(f"padding {pad} with stride {stride} (twice the padding must be a multiple of the stride)")
    return found


def conv_transpose2d_limits(
    row: MarchRow,
    *,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    pad: tuple[int, ...],
    output_padding: tuple[int, ...],
    dilation: tuple[int, ...],
    x: QuantDType,
) -> list[str]:
    """Return what the march refuses of a transposed convolution before its weights are known."""
    found = [
        *outside("kernel", kernel, row.transpose_kernel),
        *outside("stride", stride, row.transpose_stride),
        *dtype_problems(row, [TensorSpec((), x)], (qint8,)),
    ]
    found += padding_problems(kernel, stride, pad)
    if row.wider_than_high and stride[0] > stride[1]:
        found.append(f"stride {stride}, higher than wide")
    if any(k < s for k, s in zip(kernel, stride, strict=True)):
        found.append(f"kernel {kernel} smaller than the stride {stride}")
    if max(output_padding) > 1 or any(o >= s for o, s in zip(output_padding, stride, strict=True)):
        found.append(f"output_padding {output_padding} (allowed: 0, 1, and less than the stride)")
    if max(dilation) > 1:
        found.append(f"dilation {dilation} (allowed: 1)")
    return found

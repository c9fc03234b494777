"""Convolution in two and three dimensions, with fused residual and ReLU: equations (1) to (6)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from ..dtypes import QuantDType, qint8, qint16, qint32
from ..fixed_point import Array, Multiplier, requantize, requantize_wide, shift_left, wrap32
from ..kernel import IntArray, Kernel, TensorSpec, dtype_problems, outside, parameter_problems, size_problems
from ..march import MarchRow
from ..multiplier import Bias, ResidualScale

__all__ = ["Conv2d", "Conv3d", "Convolution", "finish"]


def contract(x: np.ndarray, w: np.ndarray, groups: int) -> np.ndarray:
    """Multiply (..., C) by the weights (O, C / groups) of one tap, group by group."""
    if groups == 1:
        product: np.ndarray = x @ w.T
        return product
    positions, taps = x.shape[:-1], w.shape[1]
    if taps == 1 and w.shape[0] == groups:  # depthwise
        depthwise: np.ndarray = x * w[:, 0]
        return depthwise
    split = np.moveaxis(x.reshape(-1, groups, taps), 1, 0)
    joined: np.ndarray = split @ w.reshape(groups, -1, taps).swapaxes(1, 2)
    return np.moveaxis(joined, 0, 1).reshape(*positions, -1)


def finish(
    acc: IntArray,
    row: MarchRow,
    *,
    multiplier: Multiplier,
    bias: Bias | None,
    residual: ResidualScale | None,
    relu: bool,
    out: QuantDType,
    addend: IntArray | None,
) -> IntArray:
    """Turn an accumulator (..., C) into the output: bias (5), residual (6), requantization (1) or (2), ReLU (3)."""
    if bias is not None:
        acc = acc + bias.shifted()
    if addend is not None:
        assert residual is not None
        term = addend.astype(np.int64) * residual.sumin_scale
        acc = acc + wrap32(shift_left(term, residual.sumin_left_shift.astype(np.int64)))
    if out is qint32:
        y = requantize_wide(acc, multiplier.output_right_shift.astype(np.int64), rounds=row.rounds)
    else:
        y = requantize(acc, multiplier, out, rounds=row.rounds)
    if relu:
        y = np.maximum(y, 0)
    result: IntArray = y.astype(out.numpy)
    return result


def addend_problems(
    row: MarchRow, bias: Bias | None, residual: ResidualScale | None, out: QuantDType, inputs: Sequence[TensorSpec]
) -> list[str]:
    """Return what of bias (5) and residual (6) the march cannot do."""
    found: list[str] = []
    if bias is not None:
        low, high = int(bias.bias.min()), int(bias.bias.max())
        if low < row.bias.min or high > row.bias.max:
            found.append(f"bias {low}..{high} (allowed: {row.bias.min}..{row.bias.max})")
        found += outside("bias_left_shift", bias.bias_left_shift, row.bias_left_shift)
    if residual is not None:
        found += outside("sumin_scale", residual.sumin_scale, row.sumin_scale)
        found += outside("sumin_left_shift", residual.sumin_left_shift, row.sumin_left_shift)
        found += [f"residual: {reason}" for reason in dtype_problems(row, inputs[1:], (qint8,))]
        if inputs[0].dtype is qint16:
            found.append("a residual with int16 input")
        if out is not qint8 and qint16 not in row.activations:
            found.append(f"residual with {out} output (allowed: qint8)")
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Convolution(Kernel):
    """What convolutions of every rank share; spatial parameters have one entry per spatial axis."""

    arity: ClassVar[tuple[int, int]] = (1, 2)

    weight: Array
    """int8, output channel first and input channel last: O, kernel..., I / groups."""
    bias: Bias | None = None
    multiplier: Multiplier
    """For int32 output only ``output_right_shift`` counts (2)."""
    residual: ResidualScale | None = None
    """Set if and only if a second input, the residual, is given."""
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    """Zeros on both sides of each axis."""
    dilation: tuple[int, ...]
    groups: int = 1
    relu: bool = False
    out_dtype: QuantDType = qint8

    def accumulate(self, x: IntArray) -> IntArray:
        """Return the sums of products (4), int64; float64 sums of whole numbers below 2**53 are exact in any order."""
        kernel = self.weight.shape[1:-1]
        spatial = self.infer(TensorSpec(x.shape, qint8), *self._no_residual()).shape[1:-1]
        padded = np.pad(x.astype(np.float64), [(0, 0), *((p, p) for p in self.pad), (0, 0)])
        weight = self.weight.astype(np.float64)
        acc = np.zeros((x.shape[0], *spatial, self.weight.shape[0]))
        for tap in itertools.product(*map(range, kernel)):
            window = tuple(
                slice(i * d, i * d + (n - 1) * s + 1, s)
                for i, d, n, s in zip(tap, self.dilation, spatial, self.stride, strict=True)
            )
            acc += contract(padded[(slice(None), *window)], weight[(slice(None), *tap)], self.groups)
        return acc.astype(np.int64)

    def _no_residual(self) -> tuple[TensorSpec, ...]:
        return () if self.residual is None else (TensorSpec((), qint8),)

    def run(self, row: MarchRow, *inputs: IntArray) -> IntArray:
        """Accumulate, then finish."""
        return finish(
            self.accumulate(inputs[0]),
            row,
            multiplier=self.multiplier,
            bias=self.bias,
            residual=self.residual,
            relu=self.relu,
            out=self.out_dtype,
            addend=inputs[1] if len(inputs) > 1 else None,
        )

    def infer(self, *inputs: TensorSpec) -> TensorSpec:
        """Usual convolution arithmetic; the residual has the output's shape."""
        x = inputs[0]
        self.expect_rank(self.rank + 2, x)
        out_channels, *kernel, taps = self.weight.shape
        if x.shape[-1] != taps * self.groups or out_channels % self.groups:
            raise self.reject(
                f"weights {self.weight.shape} in {self.groups} groups expect {taps * self.groups} channels", x
            )
        if (self.residual is None) != (len(inputs) == 1):
            raise self.reject("a residual input and residual scales belong together", *inputs)
        spatial = tuple(
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip(x.shape[1:-1], self.pad, self.dilation, kernel, self.stride, strict=True)
        )
        if min(spatial) < 1:
            raise self.reject(f"a kernel of {tuple(kernel)} with dilation {self.dilation} does not fit", x)
        shape = (x.shape[0], *spatial, out_channels)
        if len(inputs) == 2 and inputs[1].shape not in (shape, ()):
            raise self.reject(f"the residual must have the output's shape {shape}", *inputs)
        return TensorSpec(shape, self.out_dtype)

    def macs(self, *inputs: TensorSpec) -> int:
        """One per tap and output element."""
        return prod(self.infer(*inputs).shape) * int(prod(self.weight.shape[1:]))


@dataclass(frozen=True, kw_only=True, eq=False)
class Conv2d(Convolution):
    """Two-dimensional convolution (4) of int8 or int16 with int8 weights OHWI; depthwise where groups = channels."""

    name: ClassVar[str] = "conv2d"
    rank: ClassVar[int] = 2

    stride: tuple[int, ...] = (1, 1)
    pad: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """Kernel, stride, pad, dilation, types and parameter ranges of section 13."""
        x = inputs[0]
        found = [
            *parameter_problems(self.multiplier, row),
            *addend_problems(row, self.bias, self.residual, self.out_dtype, inputs),
            *size_problems(row, x),
        ]
        found += conv2d_limits(
            row,
            kernel=tuple(self.weight.shape[1:3]),
            stride=self.stride,
            pad=self.pad,
            dilation=self.dilation,
            groups=self.groups,
            in_channels=x.shape[-1],
            out_channels=self.weight.shape[0],
            x=x.dtype,
            out=self.out_dtype,
            relu=self.relu,
            covers_map=x.shape[1:3] == self.weight.shape[1:3] and not any(self.pad) and self.residual is None,
        )
        taps = prod(self.weight.shape[1:])
        wide = x.dtype is qint16 and taps > row.int16_any_shift_taps and self.out_dtype is not qint32
        if wide and x.dtype in row.activations and int(np.min(self.multiplier.accu_right_shift)) < 8:
            found.append(f"accu_right_shift below 8 with int16 input and {taps} taps")
        return found


def conv2d_limits(
    row: MarchRow,
    *,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    pad: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    in_channels: int,
    out_channels: int,
    x: QuantDType,
    out: QuantDType,
    relu: bool,
    covers_map: bool = False,
) -> list[str]:
    """Return what the march refuses of a convolution before its weights are known (sections 3 and 13).

    ``covers_map``: the kernel is as large as the map, and there is neither padding nor a residual.
    """
    taps = prod(kernel) * in_channels // groups
    dilation = tuple(d if k > 1 else 1 for d, k in zip(dilation, kernel, strict=True))  # of one tap it means nothing
    depthwise = groups == in_channels  # one channel counts as depthwise too
    largest = row.full_kernel if covers_map else row.depthwise_kernel if depthwise else row.kernel
    found = [
        *outside("kernel", kernel, largest),
        *outside("taps", [taps], row.taps),
        *outside("input channels", [in_channels], row.channels),
        *outside("output channels", [out_channels], row.output_channels),
        *outside("stride", stride, row.stride),
        *outside("dilation", dilation, row.dilation),
        *outside("padding", pad, row.pad),
        *dtype_problems(row, [TensorSpec((), x)], (qint8, qint16)),
    ]
    extent = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    if row.pad_at_most_half_kernel and any(p > n // 2 for p, n in zip(pad, extent, strict=True)):
        found.append(f"padding {pad} above half of the kernel's extent {extent}")
    if row.wider_than_high and dilation[0] > dilation[-1]:
        found.append(f"dilation {dilation}, higher than wide")
    if out is qint16 and qint16 not in row.activations:
        found.append(f"output type {out}")
    if max(dilation) > 1 and (x is not qint8 or out is not qint8):
        found.append(f"dilation with {x} input and {out} output (allowed: qint8 to qint8)")
    if max(dilation) > 1 and max(stride) > 1:
        found.append(f"dilation {dilation} with stride {stride} (allowed: stride 1)")
    if out is qint32 and relu and not row.rounds:
        found.append("ReLU fused to an int32 output; apply it outside the model, or quantize the output")
    if x is qint16 and qint16 in row.activations:
        if out is qint32 and taps > row.int16_any_shift_taps:
            found.append(f"int32 output from int16 input with {taps} taps (allowed: {row.int16_any_shift_taps})")
        found += outside("taps with int16 input", [taps], row.int16_conv_taps)
        if depthwise and any(s % 2 == 0 for s in stride):
            found.append(f"depthwise convolution of int16 with even stride {stride}")
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Conv3d(Convolution):
    """Three-dimensional convolution of int8 with int8 weights ODHWI; activations NDHWC."""

    name: ClassVar[str] = "conv3d"
    rank: ClassVar[int] = 3

    stride: tuple[int, ...] = (1, 1, 1)
    pad: tuple[int, ...] = (0, 0, 0)
    dilation: tuple[int, ...] = (1, 1, 1)

    def problems(self, row: MarchRow, *inputs: TensorSpec) -> list[str]:
        """Kernel up to 9, equal stride of 1 or 2, pad at most half the kernel, no groups, no dilation."""
        found = [
            *parameter_problems(self.multiplier, row),
            *addend_problems(row, self.bias, self.residual, self.out_dtype, inputs),
        ]
        found += dtype_problems(row, inputs[:1], (qint8,))
        return found + conv3d_limits(
            row,
            kernel=tuple(self.weight.shape[1:4]),
            stride=self.stride,
            pad=self.pad,
            dilation=self.dilation,
            groups=self.groups,
        )


def conv3d_limits(
    row: MarchRow,
    *,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    pad: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> list[str]:
    """Return what the march refuses of a three-dimensional convolution (documented table of the plugin)."""
    found = [*outside("kernel", kernel, row.conv3d_kernel), *outside("stride", stride, row.conv3d_stride)]
    if len(set(stride)) > 1:
        found.append(f"stride {stride}; the three must be equal")
    if any(p > k // 2 for p, k in zip(pad, kernel, strict=True)):
        found.append(f"padding {pad} above half of the kernel {kernel}")
    if groups != 1 or max(dilation) > 1:
        found.append(f"groups {groups}, dilation {dilation}; both must be 1")
    return found

"""STEPS: how every operator becomes the words of a step; all that move integers become the same one, a gather.

What the library has no step for is in ``ON_NUMPY``: a plan stops before it, the reference computes it, the plan goes
on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np

from ..dtypes import QuantDType, qint8
from ..fixed_point import compensation, half
from ..kernel import IntArray, Kernel
from ..march import MarchRow
from ..ops.choose import Gather, TopIndices
from ..ops.concat import Concat
from ..ops.constant import Constant
from ..ops.conv import Conv2d, Conv3d, Convolution
from ..ops.conv_transpose import ConvTranspose2d
from ..ops.elementwise import Add, AddScaled, Extremum, Mul, Reinterpret, Relu, Rescale
from ..ops.layout import Pad, Reshape, Slice, Transpose
from ..ops.linear import Linear, Matmul
from ..ops.lut import Lut8, Lut16
from ..ops.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from ..ops.reduce import ArgExtremum, ReduceExtremum, Sum
from ..ops.resize import ResizeBilinear, ResizeNearest, sample_positions
from ..ops.sample import GridSample, RoiAlign
from .storage import Placed
from .words import Words, broadcast_strides

__all__ = ["ON_NUMPY", "OPCODES", "STEPS", "Context"]

OPCODES = (
    "gather",
    "convolution",
    "matmul",
    "add",
    "multiply",
    "rescale",
    "relu",
    "table8",
    "table16",
    "window sum",
    "window max",
    "bilinear",
    "constant",
)
"""Kinds of steps in the order of native/src/plan.cpp."""


@dataclass(frozen=True)
class Context:
    """What a writer of steps needs beside its kernel."""

    words: Words
    row: MarchRow
    inputs: tuple[Placed, ...]
    out: Placed

    def begin(self, opcode: str) -> Words:
        """Start a step."""
        self.words.begin(OPCODES.index(opcode))
        return self.words

    @property
    def channels(self) -> int:
        """Length of the output's last axis."""
        return self.out.spec.shape[-1]


def _bias(kernel: Convolution | ConvTranspose2d | Linear) -> Any:
    if kernel.bias is None:
        return 0
    return kernel.bias.shifted()


def _spatial(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape with the axes batch, depth, height, width, channels."""
    return (shape[0], *(1,) * (5 - len(shape)), *shape[1:])


def _finish(
    context: Context, kernel: Convolution | ConvTranspose2d | Linear, shape: tuple[int, ...], out: QuantDType
) -> None:
    """Append residual and requantization of a layer with weights."""
    addend = context.inputs[1] if kernel.residual is not None else None
    context.words.residual(kernel.residual, addend, shape)
    context.words.requantizer(
        kernel.multiplier, context.channels, out, rounds=context.row.rounds, before=_bias(kernel), relu=kernel.relu
    )


def _convolution(context: Context, kernel: Convolution) -> None:
    missing = 3 - kernel.rank
    _layer(
        context,
        kernel,
        (_spatial(context.inputs[0].spec.shape), _spatial(context.out.spec.shape)),
        kernel.weight.reshape(len(kernel.weight), *(1,) * missing, *kernel.weight.shape[1:]),
        stride=(1,) * missing + kernel.stride,
        pad=(0,) * missing + kernel.pad,
        dilation=(1,) * missing + kernel.dilation,
    )


def _linear(context: Context, kernel: Linear) -> None:
    """As a convolution with a kernel of 1 over a row of positions."""
    features = context.inputs[0].spec.shape[-1]
    rows = prod(context.inputs[0].spec.shape[:-1])
    weight = kernel.weight.reshape(context.channels, 1, 1, 1, features)
    _layer(context, kernel, ((1, 1, 1, rows, features), (1, 1, 1, rows, context.channels)), weight)


def _layer(
    context: Context,
    kernel: Convolution | ConvTranspose2d | Linear,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    weight: IntArray,
    *,
    stride: tuple[int, ...] = (1, 1, 1),
    pad: tuple[int, ...] = (0, 0, 0),
    dilation: tuple[int, ...] = (1, 1, 1),
    step: tuple[int, ...] = (1, 1, 1),
    first: tuple[int, ...] = (0, 0, 0),
) -> None:
    """Append a convolution in three dimensions; ``step`` and ``first`` say which positions of the output it gives."""
    words, x = context.begin("convolution"), context.inputs[0]
    words.tensor(x, shapes[0])
    words.tensor(context.out, shapes[1])
    for entries in (weight.shape[1:4], stride, pad, dilation, step, first):
        words.list(entries)
    words.numbers(getattr(kernel, "groups", 1), x.positive)
    words.array(weight, "int8")
    _finish(context, kernel, shapes[1], getattr(kernel, "out_dtype", qint8))


def _conv_transpose(context: Context, kernel: ConvTranspose2d) -> None:
    """As one convolution of stride 1 for every phase, the outputs that take the same taps: those a stride apart."""
    shapes = (_spatial(context.inputs[0].spec.shape), _spatial(context.out.spec.shape))
    sizes = zip(kernel.weight.shape[1:3], kernel.stride, kernel.pad, shapes[1][2:4], strict=True)
    high, wide = ([_phase(k, s, p, first) for first in range(min(s, n))] for k, s, p, n in sizes)
    for y, x in product(high, wide):
        _layer(
            context,
            kernel,
            shapes,
            _weight_of_phase(kernel, y.taps, x.taps),
            pad=(0, y.pad, x.pad),
            step=(1, *kernel.stride),
            first=(0, y.first, x.first),
        )


@dataclass(frozen=True)
class _Phase:
    """One axis of the outputs of a transposed convolution that take the same taps."""

    first: int
    taps: tuple[int, ...]
    """In the order of the inputs they meet, which is the reverse of theirs."""
    pad: int
    """Of the convolution of stride 1 that gives them; negative where it starts inside the input."""


def _phase(kernel: int, stride: int, pad: int, first: int) -> _Phase:
    """Output ``first + stride * m`` takes input ``m + (first + pad - tap) / stride`` for every tap that divides."""
    taps = tuple(range((first + pad) % stride, kernel, stride))[::-1]
    return _Phase(first, taps, (taps[0] - first - pad) // stride if taps else 0)


def _weight_of_phase(kernel: ConvTranspose2d, rows: tuple[int, ...], columns: tuple[int, ...]) -> IntArray:
    """Return the weights at some taps, output channel first; a phase without taps has one of zeros."""
    inputs, outputs, groups = kernel.weight.shape[0], kernel.weight.shape[3], kernel.groups
    if not rows or not columns:
        return np.zeros((outputs * groups, 1, 1, 1, inputs // groups), np.int8)
    chosen = kernel.weight[:, rows][:, :, columns].reshape(groups, inputs // groups, len(rows), len(columns), outputs)
    arranged: IntArray = chosen.transpose(0, 4, 2, 3, 1).reshape(
        outputs * groups, 1, len(rows), len(columns), inputs // groups
    )
    return arranged


def _matmul(context: Context, kernel: Matmul) -> None:
    words = context.begin("matmul")
    leading = context.out.spec.shape[:-2]
    for each in (*context.inputs, context.out):
        words.tensor(each)
    for each in context.inputs:
        batches = each.spec.shape[:-2]
        words.array(np.broadcast_to(np.arange(prod(batches)).reshape(batches), leading), "int64")
    words.requantizer(kernel.multiplier, context.channels, qint8, rounds=context.row.rounds)


def _operands(context: Context, opcode: str) -> None:
    words = context.begin(opcode)
    for each in context.inputs:
        words.tensor(each)
        words.list(broadcast_strides(each, context.out.spec))
    words.tensor(context.out)


def _add(context: Context, kernel: Add) -> None:
    _operands(context, "add")
    words, channels = context.words, context.channels
    for values in (1, kernel.input_left_shift, kernel.residual.sumin_scale, kernel.residual.sumin_left_shift):
        words.per_channel(values, channels)
    words.requantizer(kernel.multiplier, channels, kernel.out_dtype, rounds=context.row.rounds)


def _add_scaled(context: Context, kernel: AddScaled) -> None:
    _operands(context, "add")
    words, channels = context.words, context.channels
    for values in (kernel.input_scale, 0, kernel.sumin_scale, 0):
        words.per_channel(values, channels)
    words.requantizer(kernel.multiplier, channels, qint8, rounds=False, before=compensation(kernel.multiplier))


def _mul(context: Context, kernel: Mul) -> None:
    _operands(context, "multiply")
    before = compensation(kernel.multiplier) if context.row.adds_compensation else 0
    context.words.requantizer(
        kernel.multiplier, context.channels, kernel.out_dtype, rounds=context.row.rounds, before=before
    )


def _table8(context: Context, table: IntArray) -> None:
    words = context.begin("table8")
    words.tensor(context.inputs[0])
    words.tensor(context.out)
    words.array(table, "int8")


def _rescale(context: Context, kernel: Rescale) -> None:
    """As a table where there are 256 values only: the reference run over all of them."""
    x = context.inputs[0].spec.dtype
    if x is kernel.out_dtype is qint8 and all(len(values) == 1 for values in vars(kernel.multiplier).values()):
        return _table8(context, kernel.run(context.row, np.arange(-128, 128, dtype=np.int8)))
    words = context.begin("rescale")
    words.tensor(context.inputs[0])
    words.tensor(context.out)
    words.requantizer(
        kernel.multiplier,
        context.channels,
        kernel.out_dtype,
        rounds=context.row.rounds,
        before=0 if context.row.rounds else compensation(kernel.multiplier),
        saturates_between=False,
    )
    return None


def _relu(context: Context, kernel: Relu) -> None:
    words = context.begin("relu")
    words.tensor(context.inputs[0])
    words.tensor(context.out)


def _table16(context: Context, kernel: Lut16) -> None:
    words, line = context.begin("table16"), kernel.line
    words.tensor(context.inputs[0])
    words.tensor(context.out)
    shifted = line.b.astype(np.int64) << line.add_lsh
    for values in (line.k, shifted, line.sum_rsh, line.max, kernel.tables):
        words.array(values, "int64")
    words.numbers(kernel.rounds)


def _window(
    context: Context,
    opcode: str,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    kernel: Sequence[int],
    stride: Sequence[int] = (1, 1),
    pad: Sequence[int] = (0, 0),
) -> Words:
    words = context.begin(opcode)
    words.tensor(context.inputs[0], shapes[0])
    words.tensor(context.out, shapes[1])
    for entries in (kernel, stride, pad):
        words.list(entries)
    return words


def _avg_pool(context: Context, kernel: AvgPool2d) -> None:
    shapes = (context.inputs[0].spec.shape, context.out.spec.shape)
    words, by = _window(context, "window sum", shapes, kernel.kernel, kernel.stride, kernel.pad), kernel.multiplier
    before = half(by.accu_right_shift.astype(np.int64)) if context.row.rounds else compensation(by)
    words.requantizer(by, context.channels, qint8, rounds=context.row.rounds, before=before)


def _global_avg_pool(context: Context, kernel: GlobalAvgPool2d) -> None:
    shapes = (context.inputs[0].spec.shape, context.out.spec.shape)
    words, by = _window(context, "window sum", shapes, shapes[0][1:3]), kernel.multiplier
    before = half(by.accu_right_shift.astype(np.int64)) if context.row.rounds else 0
    words.requantizer(by, context.channels, qint8, rounds=context.row.rounds, before=before)


def _sum(context: Context, kernel: Sum) -> None:
    """As a window as long as the axis, with all inner axes as channels."""
    shape, axis = context.inputs[0].spec.shape, kernel.axis
    outer, length, inner = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
    by = type(kernel.multiplier)(
        **{
            name: np.tile(np.broadcast_to(value, context.channels), inner // context.channels)
            for name, value in vars(kernel.multiplier).items()
        }
    )
    words = context.begin("window sum")
    words.dense(context.inputs[0], (outer, length, 1, inner))
    words.dense(context.out, (outer, 1, 1, inner))
    for entries in ((length, 1), (1, 1), (0, 0)):
        words.list(entries)
    words.requantizer(by, inner, qint8, rounds=context.row.rounds)


def _max_pool(context: Context, kernel: MaxPool2d) -> None:
    shapes = (context.inputs[0].spec.shape, context.out.spec.shape)
    _window(context, "window max", shapes, kernel.kernel, kernel.stride, kernel.pad)


def _resize_bilinear(context: Context, kernel: ResizeBilinear) -> None:
    words = context.begin("bilinear")
    words.tensor(context.inputs[0])
    words.tensor(context.out)
    for length, size in zip(context.inputs[0].spec.shape[1:3], kernel.size, strict=True):
        for values in sample_positions(length, size, align=kernel.align, precision=kernel.precision):
            words.array(values, "int64")
    words.numbers(kernel.legacy)


def _gather(context: Context, indices: Sequence[Any], *, fill: int = 0) -> None:
    """Append the step that copies input element ``indices[0][i] + indices[1][j] ...`` to output element (i, j, ...)."""
    _gather_into(context, context.inputs[0], context.out, indices, fill=fill)


def _gather_into(context: Context, source: Placed, target: Placed, indices: Sequence[Any], *, fill: int = 0) -> None:
    """Append a gather whose target has the strides of the output; negative indices stand for ``fill``."""
    words = context.begin("gather")
    words.tensor(source)
    words.tensor(target)
    words.list(context.out.strides)
    words.numbers(fill)
    for offsets in indices:
        words.array(offsets, "int64")


def _slice(context: Context, kernel: Slice) -> None:
    x = context.inputs[0]
    windows = zip(kernel.start, kernel.stop, kernel.step, strict=True)
    indices = [np.arange(*window) * stride for window, stride in zip(windows, x.strides, strict=True)]
    _gather(context, indices)


def _transpose(context: Context, kernel: Transpose) -> None:
    x = context.inputs[0]
    strides = x.strides
    _gather(context, [np.arange(x.spec.shape[axis]) * strides[axis] for axis in kernel.axes])


def _pad(context: Context, kernel: Pad) -> None:
    x, indices = context.inputs[0], []
    for length, before, after, stride in zip(x.spec.shape, kernel.before, kernel.after, x.strides, strict=True):
        index = np.arange(-before, length + after)
        inside = index.clip(0, length - 1)
        indices.append(np.where((kernel.mode == "edge") | (index == inside), inside * stride, -1))
    _gather(context, indices, fill=kernel.value)


def _resize_nearest(context: Context, kernel: ResizeNearest) -> None:
    x = context.inputs[0]
    batch, height, width, channels = x.spec.shape
    chosen = (
        np.arange(batch),
        np.arange(kernel.size[0]) * height // kernel.size[0],
        np.arange(kernel.size[1]) * width // kernel.size[1],
        np.arange(channels),
    )
    _gather(context, [i * stride for i, stride in zip(chosen, x.strides, strict=True)])


def _concat(context: Context, kernel: Concat) -> None:
    """Copy the inputs that do not lie in the output already."""
    before = 0
    for x in context.inputs:
        target = context.out.part(kernel.axis, before, x.spec)
        if (x.space, x.index, x.offset, x.pitch) != (target.space, target.index, target.offset, target.pitch):
            indices = [np.arange(n) * s for n, s in zip(x.spec.shape, x.strides, strict=True)]
            _gather_into(context, x, target, indices)
        before += x.spec.shape[kernel.axis]


def _constant(context: Context, kernel: Constant) -> None:
    words = context.begin("constant")
    words.tensor(context.out)
    words.array(kernel.run(context.row).view(np.uint8).ravel(), "uint8")


def _nothing(context: Context, kernel: Kernel) -> None:
    """The output is the input."""


STEPS: dict[type[Kernel], Callable[[Context, Any], None]] = {
    Add: _add,
    AddScaled: _add_scaled,
    AvgPool2d: _avg_pool,
    Concat: _concat,
    Constant: _constant,
    Conv2d: _convolution,
    Conv3d: _convolution,
    ConvTranspose2d: _conv_transpose,
    GlobalAvgPool2d: _global_avg_pool,
    Linear: _linear,
    Lut16: _table16,
    Lut8: lambda context, kernel: _table8(context, kernel.table),
    Matmul: _matmul,
    MaxPool2d: _max_pool,
    Mul: _mul,
    Pad: _pad,
    Reinterpret: _nothing,
    Relu: _relu,
    Rescale: _rescale,
    Reshape: _nothing,
    ResizeBilinear: _resize_bilinear,
    ResizeNearest: _resize_nearest,
    Slice: _slice,
    Sum: _sum,
    Transpose: _transpose,
}
"""Operator -> writer of its steps."""

ON_NUMPY: frozenset[type[Kernel]] = frozenset(
    {ArgExtremum, Extremum, Gather, GridSample, ReduceExtremum, RoiAlign, TopIndices}
)
"""Operators that numpy computes between steps: rare, and small beside the layers around them."""

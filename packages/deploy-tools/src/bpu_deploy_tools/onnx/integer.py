"""INTEGER: every operator of a Program in ONNX's integer operators, bit for bit; one row per kernel.

A row takes the graph, the march's row, the kernel, the names of its inputs and their specs, and returns the name of its
output. Tensors are stored as in the Program: channels last, int8, int16 or int32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bpu_kernels import TensorSpec
from bpu_kernels.dtypes import qint8, qint16, qint32
from bpu_kernels.fixed_point import Multiplier, compensation, half, wrap32
from bpu_kernels.kernel import Kernel
from bpu_kernels.march import MarchRow
from bpu_kernels.ops.choose import Gather, TopIndices
from bpu_kernels.ops.concat import Concat
from bpu_kernels.ops.constant import Constant
from bpu_kernels.ops.conv import Conv2d, Conv3d
from bpu_kernels.ops.conv_transpose import ConvTranspose2d
from bpu_kernels.ops.elementwise import Add, AddScaled, Extremum, Mul, Reinterpret, Relu, Rescale
from bpu_kernels.ops.layout import Pad, Reshape, Slice, Transpose
from bpu_kernels.ops.linear import Linear, Matmul
from bpu_kernels.ops.lut import ENTRIES, ZONES, Lut8, Lut16
from bpu_kernels.ops.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from bpu_kernels.ops.reduce import ArgExtremum, ReduceExtremum, Sum
from bpu_kernels.ops.resize import ResizeBilinear, ResizeNearest, sample_positions
from bpu_kernels.ops.sample import GridSample, RoiAlign

from .graph import Graph
from .sampling import grid_sample, roi_align

__all__ = ["INTEGER", "pad_behind"]

Inputs = Sequence[str]
Specs = Sequence[TensorSpec]


def _wide(by: Multiplier) -> Multiplier:
    return Multiplier(**{name: np.asarray(value, np.int64) for name, value in vars(by).items()})


# Layers with weights


def _sum_of_products(g: Graph, x: str, spec: TensorSpec, weight: np.ndarray, **attributes: Any) -> str:
    """Convolve channels-first int8 or int16 with int8 weights OIHW, to int64.

    ConvInteger has 8-bit inputs, so int16 is taken apart into pieces of 7 bits, the last one signed. They stay int8:
    some processors saturate sums of products of uint8 and int8.
    """
    w = g.constant(weight, np.int8)
    if spec.dtype is not qint16:
        return g.wide(g.add("ConvInteger", x, w, **attributes))
    rest, pieces = g.wide(x), []
    for _ in range(2):
        pieces.append(g.add("Mod", rest, g.constant(np.int64(128))))
        rest = g.shift_right(rest, 7)
    sums = (g.wide(g.add("ConvInteger", g.cast(piece, 8), w, **attributes)) for piece in (*pieces, rest))
    low, middle, high = (g.times(each, np.int64(1 << 7 * place)) for place, each in enumerate(sums))
    return g.add("Add", g.add("Add", low, middle), high)


def _finish(g: Graph, row: MarchRow, k: Any, acc: str, addend: str | None) -> str:
    """Bias (5), residual (6), requantization (1) or (2), ReLU (3), on channels-last int64."""
    if k.bias is not None:
        acc = g.plus(acc, wrap32(np.asarray(k.bias.bias, np.int64) << np.asarray(k.bias.bias_left_shift, np.int64)))
    if addend is not None:
        scaled = g.times(g.wide(addend), np.asarray(k.residual.sumin_scale, np.int64))
        acc = g.add("Add", acc, g.wrap(g.shift_left(scaled, k.residual.sumin_left_shift), 32))
    out = getattr(k, "out_dtype", qint8)
    if out is qint32:
        y = g.requantize_wide(acc, k.multiplier.output_right_shift, rounds=row.rounds)
    else:
        y = g.requantize(acc, k.multiplier, out, rounds=row.rounds)
    return _relu(g, y, out.bits) if k.relu else y


def _relu(g: Graph, x: str, bits: int) -> str:
    return g.cast(g.add("Max", g.wide(x), g.constant(np.int64(0))), bits)


def _conv(g: Graph, row: MarchRow, k: Any, inputs: Inputs, specs: Specs) -> str:
    rank = len(specs[0].shape)
    acc = _sum_of_products(
        g,
        g.channels_first(inputs[0], rank),
        specs[0],
        np.moveaxis(np.asarray(k.weight), -1, 1),
        strides=list(k.stride),
        pads=[*k.pad, *k.pad],
        dilations=list(k.dilation),
        group=k.groups,
    )
    return _finish(g, row, k, g.channels_last(acc, rank), inputs[1] if len(inputs) > 1 else None)


def _conv_transpose2d(g: Graph, row: MarchRow, k: ConvTranspose2d, inputs: Inputs, specs: Specs) -> str:
    """Convolve the input, spread out with zeros between its elements, with the turned kernel."""
    batch, height, width, channels = specs[0].shape
    (sh, sw), kernel = k.stride, k.weight.shape[1:3]
    x = g.reshape(g.channels_first(inputs[0], 4), (batch, channels, height, 1, width, 1))
    ends = [0] * 6 + [0, 0, 0, sh - 1, 0, sw - 1]
    x = g.add("Pad", x, g.constant(ends), g.constant(np.int8(0), np.int8)) if max(sh, sw) > 1 else x
    x = g.reshape(x, (batch, channels, height * sh, width * sw))
    spread = ((height - 1) * sh + 1, (width - 1) * sw + 1)
    x = g.slice(x, (0, 0, 0, 0), (batch, channels, *spread), (1, 1, 1, 1))
    begin = [size - 1 - pad for size, pad in zip(kernel, k.pad, strict=True)]
    end = [b + extra for b, extra in zip(begin, k.output_padding, strict=True)]
    turned = np.asarray(k.weight)[:, ::-1, ::-1].reshape(k.groups, channels // k.groups, *kernel, -1)
    weight = turned.transpose(0, 4, 1, 2, 3).reshape(-1, channels // k.groups, *kernel)
    acc = _sum_of_products(g, x, specs[0], weight, pads=[*begin, *end], group=k.groups)
    return _finish(g, row, k, g.channels_last(acc, 4), inputs[1] if len(inputs) > 1 else None)


def _linear(g: Graph, row: MarchRow, k: Linear, inputs: Inputs, specs: Specs) -> str:
    weight = g.constant(np.asarray(k.weight).T, np.int8)
    acc = g.wide(g.add("MatMulInteger", inputs[0], weight))
    return _finish(g, row, k, acc, inputs[1] if len(inputs) > 1 else None)


def _matmul(g: Graph, row: MarchRow, k: Matmul, inputs: Inputs, specs: Specs) -> str:
    acc = g.wide(g.add("MatMulInteger", inputs[0], inputs[1]))
    return g.requantize(acc, k.multiplier, qint8, rounds=row.rounds)


# Elementwise


def _add(g: Graph, row: MarchRow, k: Add, inputs: Inputs, specs: Specs) -> str:
    x, y = map(g.wide, inputs)
    first = g.shift_left(x, k.input_left_shift)
    term = g.shift_left(g.times(y, np.asarray(k.residual.sumin_scale, np.int64)), k.residual.sumin_left_shift)
    return g.requantize(g.add("Add", first, term), k.multiplier, k.out_dtype, rounds=row.rounds)


def _add_scaled(g: Graph, row: MarchRow, k: AddScaled, inputs: Inputs, specs: Specs) -> str:
    x, y = map(g.wide, inputs)
    scaled = (g.times(value, np.asarray(by, np.int64)) for value, by in ((x, k.input_scale), (y, k.sumin_scale)))
    acc = g.plus(g.add("Add", *scaled), compensation(_wide(k.multiplier)))
    return g.requantize(acc, k.multiplier, qint8, rounds=False)


def _mul(g: Graph, row: MarchRow, k: Mul, inputs: Inputs, specs: Specs) -> str:
    acc = g.add("Mul", *map(g.wide, inputs))
    if row.adds_compensation:
        acc = g.plus(acc, compensation(_wide(k.multiplier)))
    return g.requantize(acc, k.multiplier, k.out_dtype, rounds=row.rounds)


def _rescale(g: Graph, row: MarchRow, k: Rescale, inputs: Inputs, specs: Specs) -> str:
    x = g.wide(inputs[0])
    if not row.rounds:
        x = g.plus(x, compensation(_wide(k.multiplier)))
    return g.scaled(x, k.multiplier, k.out_dtype.bits, rounds=row.rounds)


# Pooling and sums


def _pooled(g: Graph, row: MarchRow, by: Multiplier, total: str) -> str:
    """Equations (12), rounding at both shifts, and (13), compensated; to int8."""
    wide = _wide(by)
    first = g.plus(total, half(wide.accu_right_shift) if row.rounds else compensation(wide))
    return g.scaled(g.saturate(g.shift_right(first, wide.accu_right_shift), 16), by, 8, rounds=row.rounds)


def pad_behind(k: AvgPool2d | MaxPool2d, x: TensorSpec) -> list[int]:
    """Return how far the last windows reach beyond the input, per spatial axis; ceil_mode makes that more than pad."""
    return [
        max(0, (size - 1) * s + window - n - p)
        for size, s, window, n, p in zip(k.infer(x).shape[1:3], k.stride, k.kernel, x.shape[1:3], k.pad, strict=True)
    ]


def _avg_pool2d(g: Graph, row: MarchRow, k: AvgPool2d, inputs: Inputs, specs: Specs) -> str:
    """Sum windows by a convolution with ones, each channel as an image of its own."""
    batch, height, width, channels = specs[0].shape
    _, rows, columns, _ = k.infer(specs[0]).shape
    images = g.reshape(g.channels_first(inputs[0], 4), (batch * channels, 1, height, width))
    ones, pads = np.ones((1, 1, *k.kernel), np.int8), [*k.pad, *pad_behind(k, specs[0])]
    total = _sum_of_products(g, images, specs[0], ones, strides=list(k.stride), pads=pads)
    total = g.channels_last(g.reshape(total, (batch, channels, rows, columns)), 4)
    return _pooled(g, row, k.multiplier, total)


def _global_avg_pool2d(g: Graph, row: MarchRow, k: GlobalAvgPool2d, inputs: Inputs, specs: Specs) -> str:
    total = g.add("ReduceSum", g.wide(inputs[0]), g.constant([1, 2]), keepdims=1)
    if row.rounds:
        return _pooled(g, row, k.multiplier, total)
    return g.requantize(total, k.multiplier, qint8, rounds=False)


def _max_pool2d(g: Graph, row: MarchRow, k: MaxPool2d, inputs: Inputs, specs: Specs) -> str:
    """Pad with the smallest value, then take maxima without padding."""
    ends = pad_behind(k, specs[0])
    x = g.channels_first(inputs[0], 4)
    if any((*k.pad, *ends)):
        x = g.add("Pad", x, g.constant([0, 0, *k.pad, 0, 0, *ends]), g.constant(np.int8(qint8.min), np.int8))
    return g.channels_last(g.add("MaxPool", x, kernel_shape=list(k.kernel), strides=list(k.stride)), 4)


def _sum(g: Graph, row: MarchRow, k: Sum, inputs: Inputs, specs: Specs) -> str:
    total = g.add("ReduceSum", g.wide(inputs[0]), g.constant([k.axis]), keepdims=1)
    return g.requantize(total, k.multiplier, qint8, rounds=row.rounds)


# Tables and resizing


def _lut8(g: Graph, row: MarchRow, k: Lut8, inputs: Inputs, specs: Specs) -> str:
    index = g.plus(g.wide(inputs[0]), np.int64(128))
    return g.add("Gather", g.constant(k.table, np.int8), index)


def _lut16(g: Graph, row: MarchRow, k: Lut16, inputs: Inputs, specs: Specs) -> str:
    """Equations (21) to (24)."""
    x, last = g.wide(inputs[0]), ZONES + 1
    line = {name: np.asarray(value, np.int64) for name, value in vars(k.line).items()}
    segment = g.constant(np.int64(last))
    for index in reversed(range(last)):  # the first in order wins
        inside = g.add("LessOrEqual", x, g.constant(line["max"][index]))
        segment = g.add("Where", inside, g.constant(np.int64(index)), segment)
    offsets = (line["b"] << line["add_lsh"]) + (half(line["sum_rsh"]) if k.rounds else 0)
    slope, offset, divisor = (
        g.add("Gather", g.constant(values), segment) for values in (line["k"], offsets, np.int64(1) << line["sum_rsh"])
    )
    linear = g.floor_divide(g.add("Add", g.add("Mul", slope, x), offset), divisor)
    position = g.add("Clip", linear, g.constant(np.int64(0)), g.constant(np.int64((ENTRIES - 1) << 8)))
    entry = g.add("Min", g.shift_right(position, 8), g.constant(np.int64(ENTRIES - 2)))
    fraction = g.add("Sub", position, g.times(entry, np.int64(256)))
    zone = g.plus(g.add("Clip", segment, g.constant(np.int64(1)), g.constant(np.int64(ZONES))), np.int64(-1))
    flat = g.add("Add", g.times(zone, np.int64(ENTRIES)), entry)
    values = np.asarray(k.tables, np.int64).reshape(-1)
    rises = np.append(np.diff(values), 0)
    rises = ((rises + (1 << 15)) & 0xFFFF) - (1 << 15)
    low, rise = (g.add("Gather", g.constant(each), flat) for each in (values, rises))
    between = g.add("Add", g.times(low, np.int64(256)), g.add("Mul", rise, fraction))
    between = g.shift_right(g.plus(between, np.int64(128)) if k.rounds else between, 8)
    tabled = g.add("Equal", segment, g.plus(zone, np.int64(1)))
    return g.cast(g.saturate(g.add("Where", tabled, between, linear), 16), 16)


def _resize_bilinear(g: Graph, row: MarchRow, k: ResizeBilinear, inputs: Inputs, specs: Specs) -> str:
    """Equations (27), (28)."""

    def along(x: str, axis: int, first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> str:
        shape = [-1 if i == axis else 1 for i in range(4)]
        a, b = (g.add("Gather", x, g.constant(index), axis=axis) for index in (first, second))
        weights = weight.astype(np.int64).reshape(shape)
        return g.add("Add", g.times(a, 256 - weights), g.times(b, weights))

    x = g.wide(inputs[0])
    rows, columns = (
        sample_positions(length, size, align=k.align, precision=k.precision)
        for length, size in zip(specs[0].shape[1:3], k.size, strict=True)
    )
    if k.legacy:
        across = g.shift_right(along(x, 2, *columns), 8)
        return g.cast(g.shift_right(along(across, 1, *rows), 8), 8)
    total = g.plus(along(along(x, 2, *columns), 1, *rows), np.int64(1 << 15))
    return g.cast(g.shift_right(total, 16), 8)


def _resize_nearest(g: Graph, row: MarchRow, k: ResizeNearest, inputs: Inputs, specs: Specs) -> str:
    y = inputs[0]
    for axis, (length, size) in enumerate(zip(specs[0].shape[1:3], k.size, strict=True), 1):
        y = g.add("Gather", y, g.constant(np.arange(size) * length // size), axis=axis)
    return y


# Moving


def _pad(g: Graph, row: MarchRow, k: Pad, inputs: Inputs, specs: Specs) -> str:
    bits = specs[0].dtype.bits
    x = g.cast(inputs[0], 32) if bits == 16 else inputs[0]  # runtimes have no Pad of int16
    widths = g.constant([*k.before, *k.after])
    stored = np.int32 if bits == 16 else specs[0].dtype.numpy
    fill = () if k.mode == "edge" else (g.constant(np.array(k.value, stored), stored),)
    y = g.add("Pad", x, widths, *fill, mode=k.mode)
    return g.cast(y, bits) if bits == 16 else y


def _top_indices(g: Graph, row: MarchRow, k: TopIndices, inputs: Inputs, specs: Specs) -> str:
    """TopK gives the lower index first where elements are equal; its second output is what is asked for."""
    x = g.wide(inputs[0])
    return g.cast(g.second("TopK", x, g.constant([k.k]), axis=k.axis, largest=int(k.largest), sorted=1), 32)


def _extremum(g: Graph, row: MarchRow, k: Extremum, inputs: Inputs, specs: Specs) -> str:
    return g.cast(g.add("Max" if k.largest else "Min", *map(g.wide, inputs)), specs[0].dtype.bits)


def _reduce_extremum(g: Graph, row: MarchRow, k: ReduceExtremum, inputs: Inputs, specs: Specs) -> str:
    op = "ReduceMax" if k.largest else "ReduceMin"
    return g.cast(g.add(op, g.wide(inputs[0]), g.constant([k.axis]), keepdims=1), specs[0].dtype.bits)


def _arg_extremum(g: Graph, row: MarchRow, k: ArgExtremum, inputs: Inputs, specs: Specs) -> str:
    """Of equal elements ONNX takes the first."""
    op = "ArgMax" if k.largest else "ArgMin"
    return g.cast(g.add(op, g.wide(inputs[0]), axis=k.axis, keepdims=1), specs[0].dtype.bits)


def _gather(g: Graph, row: MarchRow, k: Gather, inputs: Inputs, specs: Specs) -> str:
    last = g.constant(np.int64(specs[0].shape[k.axis] - 1))
    inside = g.add("Clip", g.wide(inputs[1]), g.constant(np.int64(0)), last)
    return g.add("GatherElements", inputs[0], inside, axis=k.axis)


def _constant(g: Graph, row: MarchRow, k: Constant, inputs: Inputs, specs: Specs) -> str:
    return g.constant(np.asarray(k.values).reshape(k.shape), k.dtype.numpy)


INTEGER: dict[type[Kernel], Callable[[Graph, MarchRow, Any, Inputs, Specs], str]] = {
    Add: _add,
    AddScaled: _add_scaled,
    ArgExtremum: _arg_extremum,
    AvgPool2d: _avg_pool2d,
    Concat: lambda g, row, k, inputs, specs: g.add("Concat", *inputs, axis=k.axis),
    Constant: _constant,
    Conv2d: _conv,
    Conv3d: _conv,
    ConvTranspose2d: _conv_transpose2d,
    Extremum: _extremum,
    Gather: _gather,
    GlobalAvgPool2d: _global_avg_pool2d,
    GridSample: grid_sample,
    Linear: _linear,
    Lut8: _lut8,
    Lut16: _lut16,
    Matmul: _matmul,
    MaxPool2d: _max_pool2d,
    Mul: _mul,
    Pad: _pad,
    ReduceExtremum: _reduce_extremum,
    Reinterpret: lambda g, row, k, inputs, specs: inputs[0],
    Relu: lambda g, row, k, inputs, specs: _relu(g, inputs[0], specs[0].dtype.bits),
    Rescale: _rescale,
    Reshape: lambda g, row, k, inputs, specs: g.reshape(inputs[0], k.shape),
    ResizeBilinear: _resize_bilinear,
    ResizeNearest: _resize_nearest,
    RoiAlign: roi_align,
    Slice: lambda g, row, k, inputs, specs: g.slice(inputs[0], k.start, k.stop, k.step),
    Sum: _sum,
    TopIndices: _top_indices,
    Transpose: lambda g, row, k, inputs, specs: g.transpose(inputs[0], k.axes),
}
"""Kernel -> its ONNX operators."""

"""BUILD: the calls of the HBIR builder that make each operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bpu_kernels import TensorSpec
from bpu_kernels.dtypes import qint8, qint16
from bpu_kernels.kernel import Kernel
from bpu_kernels.ops.choose import Gather, TopIndices
from bpu_kernels.ops.concat import Concat
from bpu_kernels.ops.constant import Constant
from bpu_kernels.ops.conv import Conv2d, Conv3d
from bpu_kernels.ops.conv_transpose import ConvTranspose2d
from bpu_kernels.ops.elementwise import Add, AddScaled, Extremum, Mul, Reinterpret, Relu, Rescale
from bpu_kernels.ops.layout import Pad, Reshape, Slice, Transpose
from bpu_kernels.ops.linear import Linear, Matmul
from bpu_kernels.ops.lut import Lut8, Lut16
from bpu_kernels.ops.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from bpu_kernels.ops.reduce import ArgExtremum, ReduceExtremum, Sum
from bpu_kernels.ops.resize import ResizeBilinear, ResizeNearest

from .plan import Inputs, Plan, Ref, Specs, axis_of, four, second_of, tuple_of, type_of
from .weighted_layers import conv2d, conv3d, conv_transpose2d, linear, matmul

__all__ = ["BUILD"]


def _add(p: Plan, k: Add, inputs: Inputs, specs: Specs) -> Ref:
    return p.helper(
        "SElementwiseAdd",
        inputs,
        output_type=type_of(k.out_dtype),
        input_left_shift=p.array(k.input_left_shift),
        sumin_scale=p.array(k.residual.sumin_scale),
        sumin_left_shift=p.array(k.residual.sumin_left_shift),
        enable_rounding=True,
        **p.multiplier(k.multiplier, 1),
    )


def _add_scaled(p: Plan, k: AddScaled, inputs: Inputs, specs: Specs) -> Ref:
    layer, by = p.layer(), p.multiplier(k.multiplier, 1)
    shifts = (by["accu_right_shift"], by["output_right_shift"])
    factors = (p.array(k.input_scale), p.array(k.sumin_scale), [0])
    output = (type_of(qint8), f"{layer}_output", by["output_scale"], *shifts)
    return p.call("base", "CreateSElementwiseAddX2a", *inputs, layer, True, *output, *factors)


def _mul(p: Plan, k: Mul, inputs: Inputs, specs: Specs) -> Ref:
    by = p.multiplier(k.multiplier, 1)
    return p.helper("SElementwiseMul", inputs, output_type=type_of(k.out_dtype), enable_rounding=True, **by)


def _rescale(p: Plan, k: Rescale, inputs: Inputs, specs: Specs) -> Ref:
    layer, by = p.layer(), p.multiplier(k.multiplier, 1)
    scale = (by["output_scale"], by["output_right_shift"])
    return p.call("base", "CreateRescale", inputs[0], layer, *scale, type_of(k.out_dtype), f"{layer}_output", True)


def _avg_pool2d(p: Plan, k: AvgPool2d, inputs: Inputs, specs: Specs) -> Ref:
    layer, by = p.layer(), p.multiplier(k.multiplier, 1)
    window = (*map(tuple_of, (k.kernel, k.stride, k.pad)), k.ceil_mode)
    last = (type_of(qint8), f"{layer}_output", by["accu_right_shift"], by["output_scale"], by["output_right_shift"])
    return p.call("base", "CreateSAvgPoolingLayer", inputs[0], layer, *window, True, *last)


def _global_avg_pool2d(p: Plan, k: GlobalAvgPool2d, inputs: Inputs, specs: Specs) -> Ref:
    layer, by = p.layer(), p.multiplier(k.multiplier, 1)
    last = (type_of(qint8), f"{layer}_output", by["accu_right_shift"], by["output_scale"], by["output_right_shift"])
    return p.call("base", "CreateGlobalAvgPoolingLayer", inputs[0], layer, p.row.rounds, *last)


def _max_pool2d(p: Plan, k: MaxPool2d, inputs: Inputs, specs: Specs) -> Ref:
    window = {name: tuple_of(getattr(k, name)) for name in ("kernel", "stride", "pad")}
    return p.helper("Pooling", inputs[0], mode="max", ceil_mode=k.ceil_mode, **window)


def _concat(p: Plan, k: Concat, inputs: Inputs, specs: Specs) -> Ref:
    return p.concat(inputs, axis_of(k.axis, len(specs[0].shape)), specs[0].dtype)


def _constant(p: Plan, k: Constant, inputs: Inputs, specs: Specs) -> Ref:
    return p.helper("Tensor", tuple_of(four(k.shape)), type_of(k.dtype), p.array(k.values), {"tuple": []}, [1.0])


def _resize_bilinear(p: Plan, k: ResizeBilinear, inputs: Inputs, specs: Specs) -> Ref:
    return p.helper(
        "RoiResize",
        inputs[0],
        interp_mode="bilinear",
        align_mode=k.align,
        target_shape=tuple_of(k.size),
        precision=k.precision,
        legacy_mode=k.legacy,
    )


def _resize_nearest(p: Plan, k: ResizeNearest, inputs: Inputs, specs: Specs) -> Ref:
    factors = [m // n for n, m in zip(specs[0].shape[1:3], k.size, strict=True)]
    return p.helper("NearestUpsample", inputs[0], tuple_of(factors))


def _lut8(p: Plan, k: Lut8, inputs: Inputs, specs: Specs) -> Ref:
    return p.helper("StepwiseFit", inputs[0], list(range(255)), p.array(k.table))


def _lut16(p: Plan, k: Lut16, inputs: Inputs, specs: Specs) -> Ref:
    columns = (k.line.k, k.line.b, k.line.add_lsh, k.line.sum_rsh, k.line.max)
    lines = np.stack([np.asarray(column) for column in columns], axis=1).tolist()
    content = {"lines": lines, "tables": np.asarray(k.tables).tolist(), "round_mode": 2 if k.rounds else 1}
    return p.helper("Lut2", [inputs[0]], {"table16": content}, output_type="int16")


def _sum(p: Plan, k: Sum, inputs: Inputs, specs: Specs) -> Ref:
    by = p.multiplier(k.multiplier, 1)
    return p.helper("SSum", inputs[0], axis_of(k.axis, len(specs[0].shape)), output_type=type_of(qint8), **by)


def _extremum(p: Plan, k: Extremum, inputs: Inputs, specs: Specs) -> Ref:
    """The operand that broadcasts comes second."""
    whole = k.infer(*specs).shape == specs[0].shape
    return p.helper("ElementwiseMax" if k.largest else "ElementwiseMin", inputs if whole else inputs[::-1])


def _reduce_extremum(p: Plan, k: ReduceExtremum, inputs: Inputs, specs: Specs) -> Ref:
    """The compiler of bernoulli2 aborts on the maximum over the height: there it is the minimum of -1 - x, mirrored."""
    axis = axis_of(k.axis, len(specs[0].shape))
    if k.largest and axis == 1 and not p.row.moves_freely:
        mirror = Lut8(table=np.arange(qint8.max, qint8.min - 1, -1).astype(np.int8))
        smallest = p.helper("ReduceMin", _lut8(p, mirror, inputs, specs), axis)
        return _lut8(p, mirror, [smallest], specs)
    return p.helper("ReduceMax" if k.largest else "ReduceMin", inputs[0], axis)


def _arg_extremum(p: Plan, k: ArgExtremum, inputs: Inputs, specs: Specs) -> Ref:
    axis = axis_of(k.axis, len(specs[0].shape))
    return p.helper("ReduceMax" if k.largest else "ReduceMin", inputs[0], axis, return_index=True)


def _top_indices(p: Plan, k: TopIndices, inputs: Inputs, specs: Specs) -> Ref:
    """The layer gives the elements first, then their places."""
    return second_of(p.helper("TopK", inputs[0], k.k, axis_of(k.axis, len(specs[0].shape)), k.largest))


def _gather(p: Plan, k: Gather, inputs: Inputs, specs: Specs) -> Ref:
    """As many at a time as there are elements.

    Indices of 16 bits may lie outside, where the layer reads anything; those of 32 do not, see ``buildable``.
    """
    (x, index), length = inputs, specs[0].shape[k.axis]
    if specs[1].dtype is qint16:
        index = p.helper("Clamp", index, 0, length - 1, output_type="int16")
    pieces = [
        p.helper("GatherElements", x, each, axis_of(k.axis, len(specs[0].shape)))
        for each in _pieces(p, index, specs[1], k.axis, length)
    ]
    return pieces[0] if len(pieces) == 1 else _concat(p, Concat(axis=k.axis), pieces, specs)


def _pieces(p: Plan, x: Ref, spec: TensorSpec, axis: int, longest: int) -> list[Ref]:
    """Cut an axis into pieces of at most some length."""
    if spec.shape[axis] <= longest:
        return [x]
    found = []
    for begin in range(0, spec.shape[axis], longest):
        start, stop = [0] * len(spec.shape), list(spec.shape)
        start[axis], stop[axis] = begin, min(begin + longest, spec.shape[axis])
        window = Slice(start=tuple(start), stop=tuple(stop), step=(1,) * len(start))
        found.append(_slice(p, window, [x], [spec]))
    return found


def _pad(p: Plan, k: Pad, inputs: Inputs, specs: Specs) -> Ref:
    missing = (0,) * (4 - len(k.before))
    before, after = ((each[0], *missing, *each[1:]) for each in (k.before, k.after))
    return p.helper("Pad", inputs[0], k.mode, tuple_of(before), tuple_of(after), int(k.value))


def _reshape(p: Plan, k: Reshape, inputs: Inputs, specs: Specs) -> Ref:
    return p.helper("View", inputs[0], tuple_of(four(k.shape)))


def _transpose(p: Plan, k: Transpose, inputs: Inputs, specs: Specs) -> Ref:
    added = len(four(specs[0].shape)) - len(k.axes)
    axes = (0, *range(1, 1 + added), *(axis + added for axis in k.axes[1:]))
    return p.helper("Transpose", inputs[0], tuple_of(axes))


def _slice(p: Plan, k: Slice, inputs: Inputs, specs: Specs) -> Ref:
    added = 4 - len(k.start)
    begin = (k.start[0], *(0,) * added, *k.start[1:])
    end, step = ((each[0], *(1,) * added, *each[1:]) for each in (k.stop, k.step))
    layer, window = p.layer(), map(tuple_of, (begin, end, step))
    return p.call("base", "CreateSliceLayer", inputs[0], layer, *window, type_of(specs[0].dtype), f"{layer}_output")


BUILD: dict[type[Kernel], Callable[[Plan, Any, Inputs, Specs], Ref]] = {
    Add: _add,
    AddScaled: _add_scaled,
    ArgExtremum: _arg_extremum,
    AvgPool2d: _avg_pool2d,
    Concat: _concat,
    Constant: _constant,
    Conv2d: conv2d,
    Conv3d: conv3d,
    ConvTranspose2d: conv_transpose2d,
    Extremum: _extremum,
    Gather: _gather,
    GlobalAvgPool2d: _global_avg_pool2d,
    Linear: linear,
    Lut8: _lut8,
    Lut16: _lut16,
    Matmul: matmul,
    MaxPool2d: _max_pool2d,
    Mul: _mul,
    Pad: _pad,
    ReduceExtremum: _reduce_extremum,
    Reinterpret: lambda p, k, inputs, specs: inputs[0],
    Relu: lambda p, k, inputs, specs: p.helper("Relu", inputs[0], output_type=type_of(qint8)),
    Rescale: _rescale,
    Reshape: _reshape,
    ResizeBilinear: _resize_bilinear,
    ResizeNearest: _resize_nearest,
    Slice: _slice,
    Sum: _sum,
    TopIndices: _top_indices,
    Transpose: _transpose,
}
"""Kernel -> the calls that build it."""

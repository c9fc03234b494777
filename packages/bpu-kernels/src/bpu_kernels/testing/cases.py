"""CASES: for every operator a generator of random valid kernels and inputs, for tests of backends and bridges.

Shapes are small, parameters cover what ``Kernel.problems`` allows on the march: types, strides, groups, broadcasting,
residuals, per-tensor and per-channel multipliers, extremes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..dtypes import QuantDType, qint8, qint16, quant_dtype
from ..errors import ArgumentError
from ..fixed_point import Multiplier
from ..kernel import IntArray, TensorSpec
from ..march import Limit, March, MarchRow, march_row
from ..multiplier import ResidualScale
from ..ops.choose import Gather, TopIndices
from ..ops.concat import Concat
from ..ops.constant import Constant
from ..ops.elementwise import Add, AddScaled, Extremum, Mul, Reinterpret, Relu, Rescale
from ..ops.layout import Pad, Reshape, Slice, Transpose
from ..ops.lut import Lut8
from ..ops.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from ..ops.reduce import ArgExtremum, ReduceExtremum, Sum
from ..ops.resize import ResizeBilinear, ResizeNearest
from ..ops.sample import GridSample, RoiAlign
from . import weighted
from .integers import random_integers
from .parameters import coin, random_entries, random_lengths, random_lut16, random_multiplier, random_within
from .weighted import Case, Rng

__all__ = ["CASES", "Case", "random_case"]


def random_case(name: str, march: March | str, rng: np.random.Generator) -> Case:
    """Return a random kernel of an operator that the march can run, and inputs for it.

    Raises:
        ArgumentError: the operator is unknown, or the march lacks it.
    """
    row = march_row(march)
    if name not in CASES or name in row.refused_kernels:
        possible = ", ".join(each for each in CASES if each not in row.refused_kernels)
        raise ArgumentError(f"no cases of {name!r} for {row.march}; there are cases of {possible}")
    for _ in range(100):
        kernel, inputs = CASES[name](rng, row)
        specs = [TensorSpec(value.shape, quant_dtype(value.dtype)) for value in inputs]
        if not kernel.problems(row, *specs):
            return kernel, inputs
    raise ArgumentError(f"100 random cases of {name!r} in a row are beyond {row.march}; mend their generator")


def _feature_map(rng: Rng, dtype: QuantDType = qint8, *, side: int = 9) -> IntArray:
    """Return one or two NHWC maps of at most so many rows and columns."""
    (batch,), (channels,) = random_lengths(rng, 1, 1, 2), random_lengths(rng, 1, 1, 7)
    return random_integers(rng, (batch, *random_lengths(rng, 2, 2, side), channels), dtype)


def _pair(rng: Rng, row: MarchRow) -> tuple[IntArray, IntArray, QuantDType]:
    """Return two operands of an elementwise operator and the type of its output."""
    types = [(qint8, qint8)] + [(qint16, qint16), (qint8, qint16)] * (qint16 in row.activations)
    first, second = types[rng.integers(len(types))]
    x = _feature_map(rng, first)
    shape = x.shape
    if row.rounds and coin(rng):
        shape = (shape[0], *(n if coin(rng) else 1 for n in shape[1:]))
    return x, random_integers(rng, shape, second), second


def _add(rng: Rng, row: MarchRow) -> Case:
    x, y, out = _pair(rng, row)
    left = random_within(rng, row.input_left_shift)
    shift = random_within(rng, row.sumin_left_shift)
    apart = row.add_shift_difference if x.dtype == np.int8 else row.add_int16_shift_difference
    shift = np.clip(shift, left - max(apart.allowed), left).astype(np.int32)
    residual = ResidualScale(sumin_scale=random_within(rng, row.add_sumin_scale), sumin_left_shift=shift)
    bound = (1 << (8 * x.dtype.itemsize - 1 + int(left[0]))) + (abs(int(residual.sumin_scale[0])) << 7)
    by = random_multiplier(rng, row, bound, out=out)
    return Add(input_left_shift=left, residual=residual, multiplier=by, out_dtype=out), (x, y)


def _add_scaled(rng: Rng, row: MarchRow) -> Case:
    x, y, _ = _pair(rng, row)
    first, second = random_within(rng, row.input_scale), random_within(rng, row.add_sumin_scale)
    by = random_multiplier(rng, row, 128 * int(first[0] + second[0]))
    return AddScaled(input_scale=first, sumin_scale=second, multiplier=by), (x, y)


def _mul(rng: Rng, row: MarchRow) -> Case:
    x, y, out = _pair(rng, row)
    bound = 1 << (8 * (x.dtype.itemsize + y.dtype.itemsize) - 2)
    return Mul(multiplier=random_multiplier(rng, row, bound, out=out), out_dtype=out), (x, y)


def _rescale(rng: Rng, row: MarchRow) -> Case:
    given, out = (row.activations[i] for i in rng.integers(len(row.activations), size=2))
    drawn = random_multiplier(rng, row, -given.min, out=out)
    by = Multiplier(
        accu_right_shift=np.zeros_like(drawn.accu_right_shift),
        output_scale=drawn.output_scale,
        output_right_shift=drawn.output_right_shift,
    )
    return Rescale(multiplier=by, out_dtype=out), (_feature_map(rng, given),)


def _window(rng: Rng, x: IntArray, kernels: Limit, strides: Limit) -> dict[str, tuple[int, ...] | bool]:
    kernel = tuple(int(rng.integers(1, min(n, kernels.allowed[-1], 5), endpoint=True)) for n in x.shape[1:3])
    if kernel == (1, 1):
        kernel = (1, 2)  # the march refuses an average of one element
    pad = tuple(int(rng.integers(0, k // 2, endpoint=True)) for k in kernel)
    return {"kernel": kernel, "stride": random_entries(rng, strides, 2, 3), "pad": pad, "ceil_mode": coin(rng)}


def _avg_pool2d(rng: Rng, row: MarchRow) -> Case:
    x = _feature_map(rng)
    window = _window(rng, x, row.avg_pool_kernel, row.pool_stride)
    by = random_multiplier(rng, row, 128 * int(np.prod(window["kernel"])))
    return AvgPool2d(multiplier=by, **window), (x,)  # type: ignore[arg-type]


def _max_pool2d(rng: Rng, row: MarchRow) -> Case:
    x = _feature_map(rng)
    return MaxPool2d(**_window(rng, x, row.max_pool_kernel, row.pool_stride)), (x,)  # type: ignore[arg-type]


def _global_avg_pool2d(rng: Rng, row: MarchRow) -> Case:
    x = _feature_map(rng, side=14)
    by = random_multiplier(rng, row, 128 * x.shape[1] * x.shape[2], right_shift=row.global_pool_right_shift)
    return GlobalAvgPool2d(multiplier=by), (x,)


def _sum(rng: Rng, row: MarchRow) -> Case:
    x = _feature_map(rng)
    axis = int(rng.integers(1, 4))
    return Sum(axis=axis, multiplier=random_multiplier(rng, row, 128 * x.shape[axis])), (x,)


def _extremum(rng: Rng, row: MarchRow) -> Case:
    x, y, out = _pair(rng, row)
    return Extremum(largest=coin(rng)), (random_integers(rng, x.shape, out), y)


def _reduce_extremum(rng: Rng, row: MarchRow) -> Case:
    x = _feature_map(rng, row.activations[rng.integers(len(row.activations))])
    return ReduceExtremum(axis=int(rng.integers(1, 4)), largest=coin(rng)), (x,)


def _arg_extremum(rng: Rng, row: MarchRow) -> Case:
    x = _feature_map(rng, row.activations[rng.integers(len(row.activations))]) // 40  # so that elements are equal
    return ArgExtremum(axis=int(rng.integers(1, 4)) if row.moves_freely else 3, largest=coin(rng)), (x,)


def _concat(rng: Rng, row: MarchRow) -> Case:
    first = _feature_map(rng, row.activations[rng.integers(len(row.activations))])
    axis = int(rng.integers(1, 4))
    shapes = [
        (*first.shape[:axis], n, *first.shape[axis + 1 :]) for n in random_lengths(rng, int(rng.integers(0, 3)), 1, 5)
    ]
    return Concat(axis=axis), (first, *(random_integers(rng, shape, first.dtype) for shape in shapes))


def _resize_bilinear(rng: Rng, row: MarchRow) -> Case:
    legacy, precision = row.resize_modes[rng.integers(len(row.resize_modes))]
    align = str(rng.choice(["center", "origin"]))
    return ResizeBilinear(size=random_lengths(rng, 2, 1, 20), align=align, precision=precision, legacy=legacy), (
        _feature_map(rng),
    )


def _pad(rng: Rng, row: MarchRow) -> Case:
    x = _feature_map(rng, row.activations[rng.integers(len(row.activations))])
    before, after = ((0, *random_lengths(rng, 3, 0, 2)) for _ in range(2))
    mode = str(rng.choice(["constant", "edge"])) if row.moves_freely else "constant"
    if not row.moves_freely:
        before, after = (*before[:3], 0), (*after[:3], 0)
    return Pad(before=before, after=after, value=int(rng.integers(-128, 128)), mode=mode), (x,)


def _slice(rng: Rng, row: MarchRow) -> Case:
    x = _feature_map(rng)
    start = tuple(int(rng.integers(0, n)) for n in x.shape)
    stop = tuple(int(rng.integers(a + 1, n, endpoint=True)) for a, n in zip(start, x.shape, strict=True))
    return Slice(start=start, stop=stop, step=random_lengths(rng, 4, 1, 3)), (x,)


def _transpose(rng: Rng, row: MarchRow) -> Case:
    return Transpose(axes=(0, *(int(axis) for axis in 1 + rng.permutation(3)))), (_feature_map(rng),)


def _reshape(rng: Rng, row: MarchRow) -> Case:
    x = _feature_map(rng)
    batch, height, width, channels = x.shape
    if row.moves_freely:
        return Reshape(shape=(batch, height * width, channels)), (x,)
    return Reshape(shape=(batch, channels)), (x[:, :1, :1],)


def _resize_nearest(rng: Rng, row: MarchRow) -> Case:
    x = _feature_map(rng)
    factors = np.sort(rng.choice([factor for factor in row.nearest_factor.allowed if factor <= 4], size=2))
    return ResizeNearest(size=tuple(n * int(f) for n, f in zip(x.shape[1:3], factors, strict=True))), (x,)


def _top_indices(rng: Rng, row: MarchRow) -> Case:
    x = _feature_map(rng, row.activations[rng.integers(len(row.activations))]) // 40  # so that elements are equal
    axis = int(rng.integers(1, 4))
    return TopIndices(axis=axis, k=int(rng.integers(1, x.shape[axis] + 1)), largest=coin(rng)), (x,)


def _gather(rng: Rng, row: MarchRow) -> Case:
    x = _feature_map(rng, row.activations[rng.integers(len(row.activations))])
    axis = int(rng.integers(1, 4))
    shape = (*x.shape[:axis], *random_lengths(rng, 1, 1, 5), *x.shape[axis + 1 :])
    return Gather(axis=axis), (x, rng.integers(-2, x.shape[axis] + 2, shape).astype(np.int16))


def _grid_sample(rng: Rng, row: MarchRow) -> Case:
    x = _feature_map(rng)
    grid = random_integers(rng, (x.shape[0], *random_lengths(rng, 2, 1, 6), 2), qint8 if coin(rng) else qint16)
    shift = tuple(int(each) for each in rng.integers(0, 20, 2))
    reach = 256 * 10 << np.array(shift)  # so that positions fall inside, and beyond every side
    factor = tuple(int(each) for each in reach // (1 << (8 * grid.dtype.itemsize)) + 1)
    offset = tuple(int(each) for each in rng.integers(-reach // 8, reach))
    mode, padding = str(rng.choice(["bilinear", "nearest"])), str(rng.choice(["zeros", "border"]))
    return GridSample(factor=factor, offset=offset, shift=shift, mode=mode, padding=padding), (x, grid)


def _roi_align(rng: Rng, row: MarchRow) -> Case:
    levels, (channels, count) = int(rng.integers(1, 4)), random_lengths(rng, 2, 1, 5)
    maps = [random_integers(rng, (1, *random_lengths(rng, 2, 1, 9), channels)) for _ in range(levels)]
    dtype = qint8 if coin(rng) else qint16
    shift = tuple(int(each) for each in rng.integers(0, 8, levels))
    factor = tuple(int(rng.integers(1, 200)) << each for each in shift)
    boxes = rng.integers(-20, 90, (count, 4)).astype(dtype.numpy)
    areas = tuple(int(each) for each in np.sort(rng.integers(0, 4000, levels - 1)))
    kernel = RoiAlign(
        size=random_lengths(rng, 2, 1, 4),
        samples=int(rng.integers(1, 4)),
        factor=factor,
        shift=shift,
        areas=areas,
        aligned=coin(rng),
    )
    return kernel, (*maps, boxes)


def _constant(rng: Rng, row: MarchRow) -> Case:
    dtype = row.activations[rng.integers(len(row.activations))]
    values = _feature_map(rng, dtype)
    return Constant(values=values.ravel().astype(np.int16), shape=values.shape, dtype=dtype), ()


CASES: dict[str, Callable[[np.random.Generator, MarchRow], Case]] = {
    "add": _add,
    "add_scaled": _add_scaled,
    "arg_extremum": _arg_extremum,
    "avg_pool2d": _avg_pool2d,
    "concat": _concat,
    "constant": _constant,
    "conv2d": weighted.conv2d,
    "conv3d": weighted.conv3d,
    "conv_transpose2d": weighted.conv_transpose2d,
    "extremum": _extremum,
    "gather": _gather,
    "global_avg_pool2d": _global_avg_pool2d,
    "grid_sample": _grid_sample,
    "linear": weighted.linear,
    "lut8": lambda rng, row: (Lut8(table=random_integers(rng, (256,))), (_feature_map(rng),)),
    "lut16": lambda rng, row: (random_lut16(rng), (_feature_map(rng, qint16, side=20),)),
    "matmul": weighted.matmul,
    "max_pool2d": _max_pool2d,
    "mul": _mul,
    "pad": _pad,
    "reduce_extremum": _reduce_extremum,
    "reinterpret": lambda rng, row: (Reinterpret(), (_feature_map(rng, row.activations[-1]),)),
    "relu": lambda rng, row: (Relu(), (_feature_map(rng),)),
    "rescale": _rescale,
    "reshape": _reshape,
    "resize_bilinear": _resize_bilinear,
    "resize_nearest": _resize_nearest,
    "roi_align": _roi_align,
    "slice": _slice,
    "sum": _sum,
    "top_indices": _top_indices,
    "transpose": _transpose,
}
"""Operator name of ``bpu_kernels.table.KERNELS`` -> generator of (kernel, inputs)."""

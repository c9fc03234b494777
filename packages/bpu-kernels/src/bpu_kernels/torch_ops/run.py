"""RUN: every operator as functions of torch, and ``run``, which takes the native engine where it can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dtypes import QuantDType, qint8, qint16
from ..engine.backend import native_engine
from ..errors import BpuKernelsError
from ..fields import map_arrays
from ..fixed_point import Array, Multiplier, compensation, requantize, requantize_pool, rescale, shift_left
from ..kernel import Kernel
from ..march import MarchRow
from ..ops.choose import Gather, TopIndices
from ..ops.concat import Concat
from ..ops.constant import Constant
from ..ops.conv import Conv2d, Conv3d
from ..ops.conv_transpose import ConvTranspose2d
from ..ops.elementwise import Add, AddScaled, Extremum, Mul, Reinterpret, Relu, Rescale
from ..ops.layout import Pad, Reshape, Slice, Transpose
from ..ops.linear import Linear, Matmul
from ..ops.lut import Lut8, Lut16, SegmentLine, lut16
from ..ops.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from ..ops.reduce import ArgExtremum, ReduceExtremum, Sum
from ..ops.resize import ResizeBilinear, ResizeNearest, blend_legacy, blend_new, sample_positions
from ..ops.sample import GridSample, RoiAlign, roi_align, sample_grid
from .axes import STORED_ANYHOW, in_order
from .native import in_real_memory, run_natively
from .tape import by_stride, noted
from .weighted import matmul, weighted

__all__ = ["CHANNEL_FIRST", "RUN", "channel_first", "run", "run_on_torch", "tensors_to_numpy"]

CHANNEL_FIRST: frozenset[type[Kernel]] = frozenset(
    {
        *(AvgPool2d, Conv2d, Conv3d, ConvTranspose2d, GlobalAvgPool2d, GridSample, MaxPool2d),
        *(ResizeBilinear, ResizeNearest, RoiAlign),
    }
)
"""Operators whose feature maps have the channel axis second here and last in a Program."""

COORDINATES_LAST: frozenset[type[Kernel]] = frozenset({GridSample, RoiAlign})
"""Those whose last input holds coordinates, which are the last axis in both."""


def channel_first(kernel: type[Kernel], count: int) -> list[bool]:
    """Return which of so many inputs are feature maps that have the channel axis second here."""
    maps = count - (kernel in COORDINATES_LAST)
    return [kernel in CHANNEL_FIRST and index < maps for index in range(count)]


AnyKernel = TypeVar("AnyKernel", bound=Kernel)


def _stored(value: Array, out: QuantDType) -> Tensor:
    """Narrow int64 values to the type that stores the output."""
    narrowed: Tensor = value.to(getattr(torch, f"int{out.bits}"))
    return narrowed


def _wide(by: Multiplier) -> Multiplier:
    return Multiplier(**{name: value.long() for name, value in vars(by).items()})


def _matmul(kernel: Matmul, row: MarchRow, x: Tensor, y: Tensor) -> Tensor:
    total = matmul(kernel, x, y).long()
    return _stored(requantize(total, _wide(kernel.multiplier), qint8, rounds=row.rounds, xp=torch), qint8)


def _add(kernel: Add, row: MarchRow, x: Tensor, y: Tensor) -> Tensor:
    term = shift_left(y.long() * kernel.residual.sumin_scale, kernel.residual.sumin_left_shift.long(), torch)
    acc = (x.long() << kernel.input_left_shift.long()) + term
    out = kernel.out_dtype
    return _stored(requantize(acc, _wide(kernel.multiplier), out, rounds=row.rounds, xp=torch), out)


def _add_scaled(kernel: AddScaled, row: MarchRow, x: Tensor, y: Tensor) -> Tensor:
    by = _wide(kernel.multiplier)
    acc = x.long() * kernel.input_scale + y.long() * kernel.sumin_scale + compensation(by, torch)
    return _stored(requantize(acc, by, qint8, rounds=False, xp=torch), qint8)


def _mul(kernel: Mul, row: MarchRow, x: Tensor, y: Tensor) -> Tensor:
    by, out = _wide(kernel.multiplier), kernel.out_dtype
    acc = x.long() * y.long()
    if row.adds_compensation:
        acc = acc + compensation(by, torch)
    return _stored(requantize(acc, by, out, rounds=row.rounds, xp=torch), out)


def _rescale(kernel: Rescale, row: MarchRow, x: Tensor) -> Tensor:
    out = kernel.out_dtype
    return _stored(rescale(x.long(), _wide(kernel.multiplier), out, rounds=row.rounds, xp=torch), out)


def _avg_pool(kernel: AvgPool2d, row: MarchRow, x: Tensor) -> Tensor:
    total = F.avg_pool2d(
        x.double(),
        kernel.kernel,
        kernel.stride,
        kernel.pad,
        kernel.ceil_mode,
        divisor_override=1,
    ).long()
    return _stored(requantize_pool(total, _wide(kernel.multiplier), rounds=row.rounds, xp=torch), qint8)


def _global_avg_pool(kernel: GlobalAvgPool2d, row: MarchRow, x: Tensor) -> Tensor:
    total, by = x.long().sum(dim=(2, 3), keepdim=True), _wide(kernel.multiplier)
    if row.rounds:
        return _stored(requantize_pool(total, by, rounds=True, xp=torch), qint8)
    return _stored(requantize(total, by, qint8, rounds=False, xp=torch), qint8)


def _max_pool(kernel: MaxPool2d, row: MarchRow, x: Tensor) -> Tensor:
    """Pool in float32: it holds int8 exactly, its padding never wins, and integer kernels lack some layouts."""
    pooled = F.max_pool2d(x.float(), kernel.kernel, kernel.stride, kernel.pad, 1, kernel.ceil_mode)
    return pooled.to(x.dtype)


def _resize_bilinear(kernel: ResizeBilinear, row: MarchRow, x: Tensor) -> Tensor:
    def axis(length: int, size: int) -> list[Tensor]:
        sampled = sample_positions(length, size, align=kernel.align, precision=kernel.precision)
        return [torch.from_numpy(values).to(x.device) for values in sampled]

    y0, y1, fy = axis(x.shape[2], kernel.size[0])
    x0, x1, fx = axis(x.shape[3], kernel.size[1])
    top, bottom = x.index_select(2, y0).int(), x.index_select(2, y1).int()
    corners = (top.index_select(3, x0), top.index_select(3, x1), bottom.index_select(3, x0), bottom.index_select(3, x1))
    blend = blend_legacy if kernel.legacy else blend_new
    return _stored(blend(corners, fy.int()[:, None], fx.int()), qint8)


def _resize_nearest(kernel: ResizeNearest, row: MarchRow, x: Tensor) -> Tensor:
    rows, columns = (
        torch.arange(size, device=x.device) * length // size
        for size, length in zip(kernel.size, x.shape[2:], strict=True)
    )
    return x.index_select(2, rows).index_select(3, columns)


def _lut16(kernel: Lut16, row: MarchRow, x: Tensor) -> Tensor:
    line = SegmentLine(**{name: value.long() for name, value in vars(kernel.line).items()})
    return _stored(lut16(x.long(), line, kernel.tables.long(), rounds=kernel.rounds, xp=torch), qint16)


def _sum(kernel: Sum, row: MarchRow, x: Tensor) -> Tensor:
    total = x.long().sum(dim=kernel.axis, keepdim=True)
    return _stored(requantize(total, _wide(kernel.multiplier), qint8, rounds=row.rounds, xp=torch), qint8)


def _pad(kernel: Pad, row: MarchRow, x: Tensor) -> Tensor:
    for axis, (before, after) in enumerate(zip(kernel.before, kernel.after, strict=True)):
        if kernel.mode == "edge":
            index = torch.arange(-before, x.shape[axis] + after, device=x.device).clamp(0, x.shape[axis] - 1)
            x = x.index_select(axis, index)
        else:
            edges = [
                x.new_full((*x.shape[:axis], width, *x.shape[axis + 1 :]), kernel.value) for width in (before, after)
            ]
            x = torch.cat([edges[0], x, edges[1]], axis)
    return x


def _top_indices(kernel: TopIndices, row: MarchRow, x: Tensor) -> Tensor:
    order = torch.sort(x, dim=kernel.axis, descending=kernel.largest, stable=True).indices
    return order.narrow(kernel.axis, 0, kernel.k).int()


def _gather(kernel: Gather, row: MarchRow, x: Tensor, index: Tensor) -> Tensor:
    return x.gather(kernel.axis, index.long().clamp(0, x.shape[kernel.axis] - 1))


def _reduce_extremum(kernel: ReduceExtremum, row: MarchRow, x: Tensor) -> Tensor:
    return (torch.amax if kernel.largest else torch.amin)(x, kernel.axis, keepdim=True)


def _arg_extremum(kernel: ArgExtremum, row: MarchRow, x: Tensor) -> Tensor:
    """Take the least place that holds the extremum, since of equal elements argmax promises none."""
    extremum = (torch.amax if kernel.largest else torch.amin)(x, kernel.axis, keepdim=True)
    length = x.shape[kernel.axis]
    places = torch.arange(length, dtype=torch.int32, device=x.device)
    places = places.reshape([-1 if axis == kernel.axis else 1 for axis in range(x.dim())])
    return torch.where(x == extremum, places, length).amin(kernel.axis, keepdim=True).to(x.dtype)


def _grid_sample(kernel: GridSample, row: MarchRow, x: Tensor, grid: Tensor) -> Tensor:
    image = torch.arange(x.shape[0], device=x.device)[:, None, None]
    return _stored(sample_grid(kernel, x.long().permute(0, 2, 3, 1), grid.long(), image), qint8).permute(0, 3, 1, 2)


def _roi_align(kernel: RoiAlign, row: MarchRow, *inputs: Tensor) -> Tensor:
    *maps, boxes = (each.long() for each in inputs)
    pooled = roi_align(kernel, tuple(each.permute(0, 2, 3, 1) for each in maps), boxes, torch)
    return _stored(pooled, qint8).permute(0, 3, 1, 2)


RUN: dict[type[Kernel], Callable[..., Tensor]] = {
    Add: _add,
    AddScaled: _add_scaled,
    ArgExtremum: _arg_extremum,
    AvgPool2d: _avg_pool,
    Concat: lambda kernel, row, *xs: torch.cat(xs, kernel.axis),
    Constant: lambda kernel, row: _stored(kernel.values.reshape(kernel.shape), kernel.dtype),
    Conv2d: weighted,
    Conv3d: weighted,
    ConvTranspose2d: weighted,
    Extremum: lambda kernel, row, x, y: (torch.maximum if kernel.largest else torch.minimum)(x, y),
    Gather: _gather,
    GlobalAvgPool2d: _global_avg_pool,
    GridSample: _grid_sample,
    Linear: weighted,
    Lut8: lambda kernel, row, x: kernel.table[x.long() + 128],
    Lut16: _lut16,
    Matmul: _matmul,
    MaxPool2d: _max_pool,
    Mul: _mul,
    Pad: _pad,
    ReduceExtremum: _reduce_extremum,
    Reinterpret: lambda kernel, row, x: x,
    Relu: lambda kernel, row, x: x.clamp(min=0),
    Rescale: _rescale,
    Reshape: lambda kernel, row, x: x.reshape(kernel.shape),
    ResizeBilinear: _resize_bilinear,
    ResizeNearest: _resize_nearest,
    RoiAlign: _roi_align,
    Slice: lambda kernel, row, x: x[tuple(map(slice, kernel.start, kernel.stop, kernel.step))],
    Sum: _sum,
    TopIndices: _top_indices,
    Transpose: lambda kernel, row, x: x.permute(kernel.axes),
}
"""Kernel class -> function (kernel, row, *inputs) -> output."""


def run(kernel: Kernel, row: MarchRow, *inputs: Tensor, narrow: bool = False) -> Tensor:
    """Compute the output's integers, equal to ``kernel.run`` element by element; on CPU tensors by the native engine.

    Args:
        kernel: its arrays are torch tensors on the inputs' device.
        row: the march.
        inputs: int8, int16 or int32 tensors, feature maps of ``CHANNEL_FIRST`` operators as N, C, spatial.
        narrow: see ``finish``; counts for operators with weights only.
    """
    y = run_natively(kernel, row, inputs)
    if y is not None:
        return y
    if in_real_memory(*inputs) and native_engine() is not None:
        return _run_as_stored(kernel, row, inputs, narrow=narrow)
    return run_on_torch(kernel, row, *inputs, narrow=narrow)


def _run_as_stored(kernel: Kernel, row: MarchRow, inputs: Sequence[Tensor], *, narrow: bool) -> Tensor:
    """Compute with functions of torch, in the memory that the engine's operators give and take, and note it."""
    if type(kernel) in CHANNEL_FIRST:
        maps = channel_first(type(kernel), len(inputs))
        stored = run_on_torch(kernel, row, *inputs, narrow=narrow).movedim(1, -1).contiguous()
        noted(kernel, row, [x.movedim(1, -1) if is_map else x for x, is_map in zip(inputs, maps, strict=True)], stored)
        return stored.movedim(-1, 1)
    if type(kernel) not in STORED_ANYHOW or len({x.dim() for x in inputs}) > 1:
        y = run_on_torch(kernel, row, *inputs, narrow=narrow)
        noted(kernel, row, inputs, y)
        return y
    order = by_stride(inputs[0])
    kernel, operands = in_order(kernel, order), [x.permute(order) for x in inputs]
    stored = run_on_torch(kernel, row, *operands)
    noted(kernel, row, operands, stored)
    return stored.permute(tuple(map(order.index, range(len(order)))))


def run_on_torch(kernel: Kernel, row: MarchRow, *inputs: Tensor, narrow: bool = False) -> Tensor:
    """Compute the same with functions of torch alone: on other devices, while torch traces, and without an engine."""
    function = RUN.get(type(kernel))
    if function is None:
        raise BpuKernelsError(
            f"{type(kernel).__name__} has no torch form; known are {', '.join(k.__name__ for k in RUN)}"
        )
    more = {"narrow": narrow} if function is weighted else {}
    return function(kernel, row, *inputs, **more)


def tensors_to_numpy(kernel: AnyKernel) -> AnyKernel:
    """Return the kernel with every tensor, nested ones too, as a contiguous numpy array: the form a Program stores."""
    converted: AnyKernel = map_arrays(kernel, lambda path, tensor: tensor.detach().cpu().contiguous().numpy())
    return converted

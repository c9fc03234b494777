"""Steps that move integers without computing: all are a gather, which copies elements by their indices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...kernel import Kernel
from ...ops.concat import Concat
from ...ops.constant import Constant
from ...ops.elementwise import Reinterpret
from ...ops.layout import Pad, Reshape, Slice, Transpose
from ...ops.resize import ResizeNearest
from ..storage import Placed
from .context import Context

__all__ = ["STEPS"]


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
    Concat: _concat,
    Constant: _constant,
    Pad: _pad,
    Reinterpret: _nothing,
    Reshape: _nothing,
    ResizeNearest: _resize_nearest,
    Slice: _slice,
    Transpose: _transpose,
}

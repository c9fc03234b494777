"""Layers that do nothing, which the tools break on: their output is their input in HBIR."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bpu_kernels import Node, TensorSpec
from bpu_kernels.kernel import Kernel
from bpu_kernels.ops.concat import Concat
from bpu_kernels.ops.elementwise import Reinterpret
from bpu_kernels.ops.layout import Reshape, Slice, Transpose
from bpu_kernels.ops.pool import MaxPool2d
from bpu_kernels.ops.resize import ResizeNearest

from .plan import four

__all__ = ["moves_nothing"]


def moves_nothing(node: Node, specs: Mapping[str, TensorSpec]) -> bool:
    """Whether a node's output is its input in HBIR, so that no layer is built for it."""
    idle = IDLE.get(type(node.kernel))
    return idle is not None and len(node.inputs) == 1 and idle(node.kernel, specs[node.inputs[0]])


IDLE: dict[type[Kernel], Callable[[Any, TensorSpec], bool]] = {
    Concat: lambda k, x: True,
    MaxPool2d: lambda k, x: k.kernel == k.stride == (1, 1) and not any(k.pad),
    Reinterpret: lambda k, x: True,
    Reshape: lambda k, x: four(k.shape) == four(x.shape),
    ResizeNearest: lambda k, x: k.size == x.shape[1:3],
    Slice: lambda k, x: k.infer(x).shape == x.shape,
    Transpose: lambda k, x: list(k.axes) == sorted(k.axes),
}
"""Kernel of one input -> whether it moves nothing."""

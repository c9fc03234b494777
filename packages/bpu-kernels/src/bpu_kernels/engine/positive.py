"""Which tensors hold no value below 0, as after ReLU: their bytes are unsigned ones too, which kernels make use of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..kernel import Kernel
from ..ops.concat import Concat
from ..ops.conv import Conv2d, Conv3d
from ..ops.conv_transpose import ConvTranspose2d
from ..ops.elementwise import Reinterpret, Relu
from ..ops.layout import Pad, Reshape, Slice, Transpose
from ..ops.linear import Linear
from ..ops.lut import Lut8
from ..ops.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from ..ops.resize import ResizeBilinear, ResizeNearest
from ..program_graph import ProgramGraph

__all__ = ["positive_tensors"]

RULES: dict[type[Kernel], Callable[[Any, bool], bool]] = {
    AvgPool2d: lambda kernel, inputs: inputs,
    Concat: lambda kernel, inputs: inputs,
    Conv2d: lambda kernel, inputs: kernel.relu,
    Conv3d: lambda kernel, inputs: kernel.relu,
    ConvTranspose2d: lambda kernel, inputs: kernel.relu,
    GlobalAvgPool2d: lambda kernel, inputs: inputs,
    Linear: lambda kernel, inputs: kernel.relu,
    Lut8: lambda kernel, inputs: bool(np.all(kernel.table[128 if inputs else 0 :] >= 0)),
    MaxPool2d: lambda kernel, inputs: inputs and kernel.pad[0] < kernel.kernel[0] and kernel.pad[1] < kernel.kernel[1],
    Pad: lambda kernel, inputs: inputs and (kernel.value >= 0 or kernel.mode == "edge"),
    Reinterpret: lambda kernel, inputs: inputs,
    Relu: lambda kernel, inputs: True,
    Reshape: lambda kernel, inputs: inputs,
    ResizeBilinear: lambda kernel, inputs: inputs,
    ResizeNearest: lambda kernel, inputs: inputs,
    Slice: lambda kernel, inputs: inputs,
    Transpose: lambda kernel, inputs: inputs,
}
"""Operator -> whether its output is, given whether all its inputs are; what is not here may be negative."""


def positive_tensors(program: ProgramGraph) -> set[str]:
    """Return the tensors that hold no value below 0 whatever the inputs are."""
    found: set[str] = set()
    for node in program.nodes:
        rule = RULES.get(type(node.kernel))
        if rule is not None and rule(node.kernel, found.issuperset(node.inputs)):
            found.add(node.output)
    return found

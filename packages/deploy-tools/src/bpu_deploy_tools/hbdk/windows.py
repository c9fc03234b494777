"""Pools and convolutions that the vendor's tools compute wrongly or break on, in forms that they get right.

    Given                                              Result
    average pool with padding, as large as the map     padding by zeros -> average pool
    max pool of one window that is not the whole map   slice of that window -> max pool over all of it
    max pool as high or as wide as the map, not both   largest along that axis -> max pool
    convolution, dilated along an axis of one tap      convolution without that dilation
    convolution whose dilation does not divide its     padding by zeros -> convolution
    padding

Found by black-box runs: of the first two the tools make global pools, of dilated convolutions ordinary ones on every
n-th element. The third takes the checker minutes from 100 pixels on, and aborts on bernoulli2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from bpu_kernels import Node, TensorSpec
from bpu_kernels.kernel import Kernel
from bpu_kernels.ops.conv import Conv2d
from bpu_kernels.ops.layout import Pad, Slice
from bpu_kernels.ops.pool import AvgPool2d, MaxPool2d
from bpu_kernels.ops.reduce import ReduceExtremum

__all__ = ["with_plain_windows"]


def with_plain_windows(nodes: list[Node], specs: Mapping[str, TensorSpec]) -> tuple[list[Node], dict[str, TensorSpec]]:
    """Return the nodes and the shapes of all tensors after the change."""
    found, known = [], dict(specs)
    for node in nodes:
        first, kernel = _forms(node.kernel, known[node.inputs[0]]) if node.inputs else (None, node.kernel)
        if first is not None:
            output = f"{node.output}.window"
            while output in known:
                output += "_"
            found.append(dataclasses.replace(node, kernel=first, output=output))
            known[output] = first.infer(known[node.inputs[0]])
            node = dataclasses.replace(node, inputs=(output, *node.inputs[1:]))
        found.append(dataclasses.replace(node, kernel=kernel))
    return found, known


def _forms(kernel: Kernel, x: TensorSpec) -> tuple[Kernel | None, Kernel]:
    """Return a kernel to put in front, if any, and the kernel behind it."""
    if isinstance(kernel, AvgPool2d) and any(kernel.pad) and kernel.kernel == x.shape[1:3]:
        return _padded_before(kernel, x)
    if isinstance(kernel, MaxPool2d) and kernel.infer(x).shape[1:3] == (1, 1):
        stop = tuple(min(k - p, n) for k, p, n in zip(kernel.kernel, kernel.pad, x.shape[1:3], strict=True))
        if stop != x.shape[1:3]:
            window = Slice(start=(0, 0, 0, 0), stop=(x.shape[0], *stop, x.shape[3]), step=(1, 1, 1, 1))
            return window, MaxPool2d(kernel=stop, stride=(1, 1))
    elif isinstance(kernel, MaxPool2d) and not any(kernel.pad):
        return _reduced_before(kernel, x)
    if isinstance(kernel, Conv2d) and max(kernel.dilation) > 1:
        taps = kernel.weight.shape[1:3]
        dilation = tuple(d if k > 1 else 1 for d, k in zip(kernel.dilation, taps, strict=True))
        if any(p % d for p, d in zip(kernel.pad, dilation, strict=True)):
            around = (0, *kernel.pad, 0)
            return Pad(before=around, after=around), dataclasses.replace(kernel, dilation=dilation, pad=(0, 0))
        return None, dataclasses.replace(kernel, dilation=dilation)
    return None, kernel


def _reduced_before(kernel: MaxPool2d, x: TensorSpec) -> tuple[Kernel | None, Kernel]:
    """Take the largest along the axis that one window covers, where there are several along the other."""
    for axis in (0, 1):
        length, other = x.shape[1 + axis], 1 - axis
        idle = kernel.kernel[other] == 1 < kernel.stride[other]  # a pool that only drops pixels
        if kernel.kernel[axis] == length > 1 and not idle:
            size, stride = ((1, each[1]) if axis == 0 else (each[0], 1) for each in (kernel.kernel, kernel.stride))
            return ReduceExtremum(axis=1 + axis), dataclasses.replace(kernel, kernel=size, stride=stride)
    return None, kernel


def _padded_before(kernel: AvgPool2d, x: TensorSpec) -> tuple[Kernel, Kernel]:
    """Put the padding in front; behind the map goes what the last window needs."""
    windows = zip(kernel.infer(x).shape[1:3], kernel.kernel, kernel.stride, kernel.pad, x.shape[1:3], strict=True)
    behind = tuple(max((count - 1) * stride + size - pad - n, 0) for count, size, stride, pad, n in windows)
    padding = Pad(before=(0, *kernel.pad, 0), after=(0, *behind, 0))
    return padding, dataclasses.replace(kernel, pad=(0, 0), ceil_mode=False)

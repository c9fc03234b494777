"""Pools that the vendor's tools take for global ones and compute wrongly or break on, in forms that they get right.

    Given                                              Result
    average pool with padding, as large as the map     padding by zeros -> average pool
    max pool of one window that is not the whole map   slice of that window -> max pool over all of it

Found by black-box runs: the windows of the one were refused, of the other the maximum of the whole map came out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from bpu_kernels import Node, TensorSpec
from bpu_kernels.kernel import Kernel
from bpu_kernels.ops.layout import Pad, Slice
from bpu_kernels.ops.pool import AvgPool2d, MaxPool2d

__all__ = ["with_plain_pools"]


def with_plain_pools(nodes: list[Node], specs: Mapping[str, TensorSpec]) -> tuple[list[Node], dict[str, TensorSpec]]:
    """Return the nodes and the shapes of all tensors after the change."""
    found, known = [], dict(specs)
    for node in nodes:
        forms = _forms(node.kernel, known[node.inputs[0]]) if node.inputs else None
        if forms is not None:
            first, kernel = forms
            output = f"{node.output}.window"
            while output in known:
                output += "_"
            found.append(dataclasses.replace(node, kernel=first, output=output))
            known[output] = first.infer(known[node.inputs[0]])
            node = dataclasses.replace(node, kernel=kernel, inputs=(output,))
        found.append(node)
    return found, known


def _forms(kernel: Kernel, x: TensorSpec) -> tuple[Kernel, Kernel] | None:
    """Return the two kernels that stand for one; None where it is fine as it is."""
    if isinstance(kernel, AvgPool2d) and any(kernel.pad) and kernel.kernel == x.shape[1:3]:
        return _padded_before(kernel, x)
    if isinstance(kernel, MaxPool2d) and kernel.infer(x).shape[1:3] == (1, 1):
        stop = tuple(min(k - p, n) for k, p, n in zip(kernel.kernel, kernel.pad, x.shape[1:3], strict=True))
        if stop != x.shape[1:3]:
            window = Slice(start=(0, 0, 0, 0), stop=(x.shape[0], *stop, x.shape[3]), step=(1, 1, 1, 1))
            return window, MaxPool2d(kernel=stop, stride=(1, 1))
    return None


def _padded_before(kernel: AvgPool2d, x: TensorSpec) -> tuple[Kernel, Kernel]:
    """Put the padding in front; behind the map goes what the last window needs."""
    windows = zip(kernel.infer(x).shape[1:3], kernel.kernel, kernel.stride, kernel.pad, x.shape[1:3], strict=True)
    behind = tuple(max((count - 1) * stride + size - pad - n, 0) for count, size, stride, pad, n in windows)
    padding = Pad(before=(0, *kernel.pad, 0), after=(0, *behind, 0))
    return padding, dataclasses.replace(kernel, pad=(0, 0), ceil_mode=False)

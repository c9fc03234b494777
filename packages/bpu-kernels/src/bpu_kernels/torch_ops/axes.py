"""Kernels that name axes of a tensor, for a tensor whose axes are stored in another order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..kernel import Kernel
from ..ops.choose import Gather, TopIndices
from ..ops.concat import Concat
from ..ops.elementwise import Extremum, Reinterpret, Relu
from ..ops.layout import Pad
from ..ops.reduce import ArgExtremum, ReduceExtremum, Sum

__all__ = ["STORED_ANYHOW", "in_order"]

Order = tuple[int, ...]
"""Stored axis i is axis ``order[i]`` of the tensor."""

STORED_ANYHOW: frozenset[type[Kernel]] = frozenset(
    {ArgExtremum, Concat, Extremum, Gather, Pad, ReduceExtremum, Reinterpret, Relu, TopIndices}
)
"""Operators that give the same elements in whatever order the axes of their inputs are stored, all in the same one."""


def _one_axis(kernel: Any, order: Order) -> Kernel:
    return replace(kernel, axis=order.index(kernel.axis))  # type: ignore[no-any-return]


def _every_axis(kernel: Pad, order: Order) -> Kernel:
    before, after = (tuple(widths[axis] for axis in order) for widths in (kernel.before, kernel.after))
    return replace(kernel, before=before, after=after)


_IN_ORDER: dict[type[Kernel], Callable[[Any, Order], Kernel]] = {
    Pad: _every_axis,
    **dict.fromkeys((ArgExtremum, Concat, Gather, ReduceExtremum, Sum, TopIndices), _one_axis),
}


def in_order(kernel: Kernel, order: Order) -> Kernel:
    """Return the kernel with stored axes in the place of the tensor's; one that names none is returned as it is."""
    renamed = _IN_ORDER.get(type(kernel))
    return kernel if renamed is None else renamed(kernel, order)

"""Programs for tests of backends: one around a single kernel, and random nets that branch, join, reuse and reshape."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..builder import ProgramBuilder, Value
from ..dtypes import qint8, quant_dtype
from ..errors import BpuKernelsError
from ..kernel import IntArray, Kernel
from ..march import March, MarchRow, march_row
from ..ops.concat import Concat
from ..ops.conv import Conv2d
from ..ops.elementwise import Add, Reinterpret, Relu
from ..ops.layout import Pad, Reshape, Slice
from ..ops.lut import Lut8
from ..ops.pool import MaxPool2d
from ..ops.resize import ResizeNearest
from ..program import Program
from .integers import random_integers
from .parameters import coin, random_bias, random_multiplier, random_residual

__all__ = ["program_of", "random_program"]

Rng = np.random.Generator
Choice = tuple[Kernel, tuple[Value, ...]]


def program_of(kernel: Kernel, march: March | str, inputs: Sequence[IntArray]) -> tuple[Program, dict[str, IntArray]]:
    """Return a Program of one node, whose output is called "out", and its inputs by name.

    It has an input even if the node, as a constant, reads none.
    """
    builder = ProgramBuilder(march)
    named = {f"x{i}": value for i, value in enumerate(inputs or (np.zeros((1, 1), np.int8),))}
    values = [builder.input(name, value.shape, quant_dtype(value.dtype), 1.0) for name, value in named.items()]
    builder.output(builder.add(kernel, *values[: len(inputs)], name="node", scale=1.0), "out")
    return builder.build(), named


def random_program(march: March | str, rng: np.random.Generator, *, nodes: int = 12) -> tuple[Program, IntArray]:
    """Return a random net of int8 with about so many nodes, and an input for it.

    Values are read by none, one or several nodes; some are outputs as well.
    """
    row, builder = march_row(march), ProgramBuilder(march)
    shape = (int(rng.integers(1, 3)), *(int(n) for n in rng.integers(4, 12, 2)), int(rng.integers(1, 40)))
    values = [builder.input("x", shape, qint8, 1.0)]
    possible = [draw for name, draw in DRAWS.items() if name not in row.refused_kernels]
    for _ in range(nodes):
        drawn = possible[rng.integers(len(possible))](rng, row, values)
        if drawn is not None and not drawn[0].problems(row, *(value.spec for value in drawn[1])):
            try:
                values.append(builder.add(drawn[0], *drawn[1], name=drawn[0].name, scale=1.0))
            except BpuKernelsError:
                continue  # a window that does not fit, say; the net has one node less
    for number, value in enumerate(values[1:]):
        if value is values[-1] or rng.random() < 1 / 6:
            builder.output(value, f"out{number}")
    if len(values) == 1:
        return random_program(march, rng, nodes=nodes)
    return builder.build(), random_integers(rng, shape)


def _recent(rng: Rng, values: list[Value]) -> Value:
    """Return a value, late ones more often, so that nets are deep."""
    return values[max(len(values) - 1 - int(rng.geometric(0.4) - 1), 0)]


def _like(rng: Rng, values: list[Value], value: Value) -> Value:
    """Return a value of the same shape."""
    same = [each for each in values if each.spec == value.spec]
    return same[rng.integers(len(same))]


def _conv(rng: Rng, row: MarchRow, values: list[Value]) -> Choice:
    x = _recent(rng, values)
    channels = x.spec.shape[-1]
    depthwise = coin(rng) and channels > 1
    size = 3 if depthwise or coin(rng) else 1
    outputs = channels if depthwise or coin(rng) else int(rng.integers(1, 40))
    weight = random_integers(rng, (outputs, size, size, 1 if depthwise else channels))
    bound = int((size * size * weight.shape[-1]) ** 0.5 * 80 * 128)
    conv = Conv2d(
        weight=weight,
        bias=random_bias(rng, row, outputs, bound),
        multiplier=random_multiplier(rng, row, bound, channels=outputs),
        residual=random_residual(rng, row, outputs, bound) if outputs == channels and coin(rng) else None,
        pad=(size // 2, size // 2),
        groups=channels if depthwise else 1,
        relu=coin(rng),
    )
    return conv, (x,) if conv.residual is None else (x, _like(rng, values, x))


def _add(rng: Rng, row: MarchRow, values: list[Value]) -> Choice:
    x = _recent(rng, values)
    by = random_multiplier(rng, row, 1 << 16)
    residual = random_residual(rng, row, 1, 1 << 15)
    return Add(input_left_shift=np.array([8]), residual=residual, multiplier=by), (x, _like(rng, values, x))


def _concat(rng: Rng, row: MarchRow, values: list[Value]) -> Choice | None:
    first = _recent(rng, values)
    axis = int(rng.integers(1, len(first.spec.shape)))
    chosen = [
        value
        for value in values
        if value.spec.shape[:axis] + value.spec.shape[axis + 1 :]
        == first.spec.shape[:axis] + first.spec.shape[axis + 1 :]
        and len(value.spec.shape) == len(first.spec.shape)
    ]
    return Concat(axis=axis), tuple(chosen[-3:])


def _slice(rng: Rng, row: MarchRow, values: list[Value]) -> Choice:
    x = _recent(rng, values)
    start = tuple(int(axis > 0 and n > 2) for axis, n in enumerate(x.spec.shape))
    return Slice(start=start, stop=x.spec.shape, step=(1,) * len(start)), (x,)


def _reshape(rng: Rng, row: MarchRow, values: list[Value]) -> Choice:
    x = _recent(rng, values)
    batch, *rest = x.spec.shape
    return Reshape(shape=(batch, rest[1], rest[0], rest[2])), (x,)


DRAWS: dict[str, Callable[[Rng, MarchRow, list[Value]], Choice | None]] = {
    "add": _add,
    "concat": _concat,
    "conv2d": _conv,
    "lut8": lambda rng, row, values: (Lut8(table=random_integers(rng, (256,))), (_recent(rng, values),)),
    "max_pool2d": lambda rng, row, values: (
        MaxPool2d(kernel=(3, 3), stride=(1, 1), pad=(1, 1)),
        (_recent(rng, values),),
    ),
    "pad": lambda rng, row, values: (Pad(before=(0, 1, 1, 0), after=(0, 0, 1, 0), value=3), (_recent(rng, values),)),
    "reinterpret": lambda rng, row, values: (Reinterpret(), (_recent(rng, values),)),
    "relu": lambda rng, row, values: (Relu(), (_recent(rng, values),)),
    "reshape": _reshape,
    "resize_nearest": lambda rng, row, values: (
        ResizeNearest(size=values[0].spec.shape[1:3]),
        (_recent(rng, values),),
    ),
    "slice": _slice,
}
"""Operator -> a random kernel and what it reads, or None."""

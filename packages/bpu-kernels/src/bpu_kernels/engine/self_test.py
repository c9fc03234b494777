"""What the engine must give before it is used: the reference's integers on extreme data."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import numpy as np

from ..errors import BpuKernelsError
from ..fixed_point import Multiplier
from ..multiplier import Bias
from ..ops.conv import Conv2d
from ..ops.elementwise import Relu

if TYPE_CHECKING:
    from ..program import Program
    from .plan import Plan

__all__ = ["failure"]

CHANNELS = 20  # no multiple of any vector's length
SIDE = 5


def failure(make: Callable[[Program, Collection[str]], Plan]) -> str | None:
    """Return a sentence if a plan does not give the reference's integers where sums and saturations are largest."""
    program, inputs = _program()
    expected, values = {}, dict(inputs)
    for node in program.nodes:
        values[node.output] = node.kernel.run(program.row, *(values[name] for name in node.inputs))
    expected = {each.tensor: values[each.tensor] for each in program.outputs}
    try:
        got = make(program, list(expected)).run(program.nodes, inputs, None)
    except BpuKernelsError as error:
        return str(error)
    wrong = [name for name, value in expected.items() if not np.array_equal(got[name], value)]
    return f"the self-test of the engine fails on this machine ({', '.join(wrong)})" if wrong else None


def _program() -> tuple[Program, dict[str, np.ndarray]]:
    """Return convolutions of -128 and 127 by weights of -128 and 127, with signed and with positive inputs."""
    from ..builder import ProgramBuilder  # which imports run, which imports this

    rng = np.random.default_rng(0)
    extremes = np.array([-128, 127], np.int8)
    builder = ProgramBuilder("bayes")
    shape = (1, SIDE, SIDE, CHANNELS)
    signed = builder.input("x", shape, "qint8", 1.0)
    positive = builder.add(Relu(), signed, name="positive")
    for value in (signed, positive):
        for name, kernel, groups in (("pointwise", 1, 1), ("full", 3, 1), ("depthwise", 3, CHANNELS)):
            weight = rng.choice(extremes, (CHANNELS, kernel, kernel, CHANNELS // groups))
            weight[: CHANNELS // 2] = 127  # the largest sums
            conv = Conv2d(
                weight=weight,
                bias=Bias(bias=rng.integers(-(2**20), 2**20, CHANNELS), bias_left_shift=np.zeros(1, np.int64)),
                multiplier=Multiplier(
                    accu_right_shift=np.arange(CHANNELS) % 8,
                    output_scale=32767 - np.arange(CHANNELS),
                    output_right_shift=15 + np.arange(CHANNELS) % 10,
                ),
                pad=(kernel // 2, kernel // 2),
                groups=groups,
            )
            builder.output(builder.add(conv, value, name=f"{name} {value.name}", scale=1.0), f"{name} {value.name}")
    x = rng.choice(extremes, shape)
    x[:, :3] = 127
    return builder.build(), {"x": x}

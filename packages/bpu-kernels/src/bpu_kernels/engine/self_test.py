"""What the engine must give before it is used: the reference's integers on extreme data."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from ..dtypes import qint8
from ..errors import BpuKernelsError
from ..fixed_point import Multiplier
from ..kernel import TensorSpec
from ..march import March
from ..multiplier import Bias
from ..ops.conv import Conv2d
from ..ops.elementwise import Relu
from ..program_graph import Node, ProgramGraph, ProgramInput, ProgramOutput
from .plan import Plan

__all__ = ["failure"]

CHANNELS = 20  # no multiple of any vector's length
SIDE = 5


def failure(make: Callable[[ProgramGraph, Collection[str]], Plan]) -> str | None:
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


def _program() -> tuple[ProgramGraph, dict[str, np.ndarray]]:
    """Return convolutions of -128 and 127 by weights of -128 and 127, with signed and with positive inputs."""
    rng = np.random.default_rng(0)
    extremes = np.array([-128, 127], np.int8)
    shape = (1, SIDE, SIDE, CHANNELS)
    signed = ProgramInput(name="x", spec=TensorSpec(shape, qint8), scale=(1.0,))
    nodes = [Node(name="positive", kernel=Relu(), inputs=("x",), output="positive", scale=(1.0,))]
    for value in ("x", "positive"):
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
            convolved = f"{name} {value}"
            nodes.append(Node(name=convolved, kernel=conv, inputs=(value,), output=convolved, scale=(1.0,)))
    x = rng.choice(extremes, shape)
    x[:, :3] = 127
    outputs = tuple(ProgramOutput(name=node.name, tensor=node.output) for node in nodes[1:])
    return ProgramGraph(march=March.BAYES, inputs=(signed,), nodes=tuple(nodes), outputs=outputs), {"x": x}

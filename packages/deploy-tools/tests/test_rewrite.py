"""What is built for the vendor's tools is another form of the Program, which gives the same integers."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import pytest

import bpu_kernels
from bpu_deploy_tools.hbdk import simulate
from bpu_deploy_tools.hbdk.hbir import plan
from bpu_deploy_tools.hbdk.rewrite import rewritten
from bpu_kernels import Program, ProgramBuilder, UnsupportedError, Value, quant_dtype
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.march import March
from bpu_kernels.multiplier import ResidualScale
from bpu_kernels.ops.constant import Constant
from bpu_kernels.ops.conv import Conv2d
from bpu_kernels.ops.elementwise import Extremum, Mul, Reinterpret, Relu
from bpu_kernels.ops.layout import Pad, Reshape, Slice
from bpu_kernels.ops.linear import Linear
from bpu_kernels.ops.pool import AvgPool2d, MaxPool2d
from bpu_kernels.testing import assert_integers_equal, random_program

SHAPE = (1, 8, 8, 4)
RNG = np.random.default_rng(0)


def multiplier(right_shift: int = 10) -> Multiplier:
    shifts = np.zeros(1, np.int32), np.full(1, 3, np.int32), np.full(1, right_shift, np.int32)
    return Multiplier(accu_right_shift=shifts[0], output_scale=shifts[1], output_right_shift=shifts[2])


def constant(builder: ProgramBuilder) -> Value:
    values = RNG.integers(-100, 100, SHAPE).astype(np.int32).reshape(-1)
    return builder.add(Constant(values=values, shape=SHAPE, dtype=quant_dtype("qint8")), name="constant", scale=1.0)


def dilated(builder: ProgramBuilder, x: Value, taps: tuple[int, int] = (3, 3), pad: tuple[int, int] = (2, 2)) -> Value:
    weight = RNG.integers(-128, 128, (4, *taps, 4)).astype(np.int8)
    kernel = Conv2d(weight=weight, multiplier=multiplier(), pad=pad, dilation=(2, 2))
    return builder.add(kernel, x, name="dilated", scale=1.0)


def every_second(builder: ProgramBuilder, x: Value) -> Value:
    return builder.add(Slice(start=(0,) * 4, stop=SHAPE, step=(1, 2, 2, 1)), x, name="slice", scale=1.0)


def relu(builder: ProgramBuilder, x: Value, name: str = "relu") -> Value:
    return builder.add(Relu(), x, name=name, scale=1.0)


def padded(builder: ProgramBuilder, x: Value, name: str = "pad") -> Value:
    return builder.add(Pad(before=(0, 1, 0, 0), after=(0, 0, 1, 0), value=3), x, name=name, scale=1.0)


def one_by_one(builder: ProgramBuilder, x: Value) -> Value:
    return builder.add(MaxPool2d(kernel=(1, 1), stride=(1, 1)), x, name="pool", scale=1.0)


def corner(builder: ProgramBuilder, x: Value) -> Value:
    return builder.add(Slice(start=(0,) * 4, stop=(1, 3, 3, 4), step=(1,) * 4), x, name="corner", scale=1.0)


def average(builder: ProgramBuilder, x: Value, **window: Any) -> Value:
    return builder.add(AvgPool2d(multiplier=multiplier(4), **window), x, name="average", scale=1.0)


def maximum(builder: ProgramBuilder, x: Value, **window: Any) -> Value:
    return builder.add(MaxPool2d(**window), x, name="maximum", scale=1.0)


def flattened(builder: ProgramBuilder, x: Value) -> Value:
    size = prod(x.spec.shape)
    flat = builder.add(Reshape(shape=(1, size)), x, name="flat", scale=1.0)
    weight = RNG.integers(-128, 128, (10, size)).astype(np.int8)
    return builder.add(Linear(weight=weight, multiplier=multiplier(18)), flat, name="linear", scale=1.0)


def product(builder: ProgramBuilder, x: Value, y: Value) -> Value:
    return builder.add(Mul(multiplier=multiplier()), x, y, name="product", scale=1.0)


def made(build: Callable[[ProgramBuilder, Value], list[Value]], march: March = March.BAYES) -> Program:
    """Return a Program of one input and the outputs y0, y1, ... that a function builds."""
    builder = ProgramBuilder(march)
    x = builder.input("x", SHAPE, "qint8", 1.0)
    for index, value in enumerate(build(builder, x)):
        builder.output(value, f"y{index}")
    return builder.build()


PROGRAMS: dict[str, tuple[Callable[[ProgramBuilder, Value], list[Value]], list[str]]] = {
    "operator on a constant": (lambda b, x: [product(b, x, relu(b, constant(b)))], ["constant", "mul"]),
    "constant first": (lambda b, x: [product(b, constant(b), x)], ["constant", "mul"]),
    "maximum of a constant and another": (
        lambda b, x: [b.add(Extremum(), constant(b), x, name="larger", scale=1.0)],
        ["constant", "extremum"],
    ),
    "flattening before a linear layer": (lambda b, x: [flattened(b, x)], ["conv2d"]),
    "flattening that is an output too": (
        lambda b, x: [flat := b.add(Reshape(shape=(1, 256)), x, name="flat", scale=1.0), relu(b, flat)],
        ["reshape", "pad", "relu"],
    ),
    "every second element of a dilated convolution": (
        lambda b, x: [every_second(b, relu(b, dilated(b, x)))],
        ["conv2d", "relu", "pad", "slice"],
    ),
    "every second element of an input": (lambda b, x: [every_second(b, x)], ["slice"]),
    "output of a convolution that ReLU reads": (
        lambda b, x: [y := dilated(b, x), relu(b, y)],
        ["conv2d", "pad", "relu"],
    ),
    "ReLU twice behind a pool of one element": (
        lambda b, x: [relu(b, y := one_by_one(b, dilated(b, x))), relu(b, y, "again")],
        ["conv2d", "max_pool2d", "pad", "relu", "pad", "relu"],
    ),
    "padded output that is padded again": (
        lambda b, x: [y := padded(b, x), padded(b, y, "again")],
        ["pad", "lut8", "pad"],
    ),
    "average pool with padding, as large as the map": (
        lambda b, x: [average(b, corner(b, x), kernel=(3, 3), stride=(2, 2), pad=(1, 1))],
        ["slice", "pad", "avg_pool2d"],
    ),
    "average pool with one padded window": (
        lambda b, x: [average(b, corner(b, x), kernel=(3, 3), stride=(4, 4), pad=(1, 1))],
        ["slice", "pad", "avg_pool2d"],
    ),
    "max pool of one window of many": (
        lambda b, x: [maximum(b, corner(b, x), kernel=(2, 2), stride=(3, 3))],
        ["slice", "slice", "max_pool2d"],
    ),
    "max pool of one window and its padding": (
        lambda b, x: [maximum(b, corner(b, x), kernel=(3, 3), stride=(4, 4), pad=(1, 1))],
        ["slice", "slice", "max_pool2d"],
    ),
    "max pool over the whole map": (
        lambda b, x: [maximum(b, corner(b, x), kernel=(3, 3), stride=(1, 1))],
        ["slice", "max_pool2d"],
    ),
    "max pool as high as the map": (
        lambda b, x: [maximum(b, corner(b, x), kernel=(3, 1), stride=(2, 1))],
        ["slice", "reduce_extremum", "max_pool2d"],
    ),
    "max pool as wide as the map": (
        lambda b, x: [maximum(b, x, kernel=(2, 8), stride=(2, 3))],
        ["reduce_extremum", "max_pool2d"],
    ),
    "dilation along an axis of one tap": (lambda b, x: [dilated(b, x, (1, 3), (0, 2))], ["conv2d"]),
    "dilation that does not divide the padding": (lambda b, x: [dilated(b, x, (3, 2), (2, 1))], ["pad", "conv2d"]),
    "node that nothing uses": (lambda b, x: (relu(b, x, "dead"), [relu(b, x)])[1], ["relu"]),
    "same tensor twice": (lambda b, x: [y := relu(b, x), y], ["relu"]),
    "the input itself": (lambda b, x: [relu(b, x), x], ["relu"]),
    "another name of a tensor": (
        lambda b, x: [y := relu(b, x), b.add(Reinterpret(), y, name="other", scale=2.0)],
        ["relu", "reinterpret"],
    ),
    "constant output": (lambda b, x: [relu(b, x), constant(b)], ["relu", "constant"]),
}
"""What a Program has -> the Program, and the kernels that are built for it."""


EVERY_MARCH = [name for name in PROGRAMS if "flattening" not in name and "maximum of a constant" not in name]
"""Those that bernoulli2 can run too."""


def run_rewritten(program: Program, inputs: dict[str, Any]) -> dict[str, Any]:
    values = dict(inputs)
    for node in rewritten(program).nodes:
        values[node.output] = node.kernel.run(program.row, *(values[name] for name in node.inputs))
    return {output.name: values[output.tensor] for output in program.outputs}


@pytest.mark.parametrize("name", PROGRAMS)
def test_rewritten_nodes_are_as_expected_and_give_the_integers_of_the_program(name: str) -> None:
    build, kernels = PROGRAMS[name]
    program = made(build)
    assert [node.kernel.name for node in rewritten(program).nodes] == kernels
    x = {"x": RNG.integers(-128, 128, SHAPE).astype(np.int8)}
    got, expected = run_rewritten(program, x), bpu_kernels.run(program, x)
    for output, value in expected.items():
        assert_integers_equal(got[output].reshape(value.shape), value, what=output)


@pytest.mark.parametrize("march", list(March), ids=str)
def test_rewritten_random_programs_give_the_integers_of_the_program(march: March) -> None:
    for seed in range(20):
        program, x = random_program(march, np.random.default_rng(seed))
        got, expected = run_rewritten(program, {"x": x}), bpu_kernels.run(program, x)
        for output, value in expected.items():
            assert_integers_equal(got[output].reshape(value.shape), value, what=f"{output}, seed {seed}")


@pytest.mark.hbdk
@pytest.mark.parametrize("march", list(March), ids=str)
def test_simulator_gives_the_integers_of_what_is_rewritten(march: March) -> None:
    for name, (build, _) in PROGRAMS.items():
        if march is March.BERNOULLI2 and name not in EVERY_MARCH:
            continue
        program = made(build, march)
        x = {"x": RNG.integers(-128, 128, SHAPE).astype(np.int8)}
        got, expected = simulate(program, x), bpu_kernels.run(program, x)
        for output, value in expected.items():
            assert_integers_equal(got[output], value, what=f"{name}: {output}")


@pytest.mark.parametrize("name", PROGRAMS)
def test_tensors_that_are_handed_out_are_all_different_and_no_input(name: str) -> None:
    planned = plan(made(PROGRAMS[name][0]))
    assert len({*planned.inputs, *planned.outputs}) == len(planned.inputs) + len(planned.outputs)


def test_product_of_two_types_keeps_its_order() -> None:
    builder = ProgramBuilder("bayes")
    x = builder.input("x", SHAPE, "qint16", 1.0)
    kernel = Mul(multiplier=multiplier(), out_dtype=quant_dtype("qint16"))
    builder.output(builder.add(kernel, constant(builder), x, name="product", scale=1.0), "y")
    assert rewritten(builder.build()).nodes[-1].inputs == ("constant", "x")


def test_map_that_no_kernel_covers_is_flattened() -> None:
    builder = ProgramBuilder("bayes")
    x = builder.input("x", (1, 40, 40, 2), "qint8", 1.0)
    builder.output(flattened(builder, x), "y")
    assert [node.kernel.name for node in rewritten(builder.build()).nodes] == ["reshape", "linear"]


def test_input_that_no_output_depends_on_is_refused() -> None:
    builder = ProgramBuilder("bayes")
    x, _ = (builder.input(name, SHAPE, "qint8", 1.0) for name in ("x", "unused"))
    builder.output(relu(builder, x), "y")
    with pytest.raises(UnsupportedError, match=r"unused: no output depends on this input .*leave it out"):
        plan(builder.build())


def test_maximum_of_a_constant_is_refused_on_bernoulli2() -> None:
    program = made(PROGRAMS["maximum of a constant and another"][0], March.BERNOULLI2)
    with pytest.raises(UnsupportedError, match="larger: the larger of a tensor and a constant"):
        plan(program)


def test_convolution_of_a_constant_with_a_residual_is_refused() -> None:
    builder = ProgramBuilder("bayes")
    x = builder.input("x", SHAPE, "qint8", 1.0)
    residual = ResidualScale(sumin_scale=np.ones(1, np.int32), sumin_left_shift=np.zeros(1, np.int32))
    kernel = Conv2d(weight=np.ones((4, 1, 1, 4), np.int8), multiplier=multiplier(), residual=residual)
    builder.output(builder.add(kernel, constant(builder), x, name="conv", scale=1.0), "y")
    with pytest.raises(UnsupportedError, match="conv: conv2d of a constant"):
        plan(builder.build())

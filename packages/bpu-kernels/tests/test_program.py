"""What makes a Program valid: every rule has a Program that breaks it, and all problems come in one error."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bpu_kernels import (
    ArgumentError,
    Cost,
    InvalidProgramError,
    March,
    Node,
    Problem,
    Program,
    ProgramBuilder,
    ProgramInput,
    ProgramOutput,
    SelfTest,
    SelfTestError,
    TensorSpec,
    UnsupportedError,
    qint8,
    qint16,
    qint32,
)
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.kernel import Kernel
from bpu_kernels.multiplier import ResidualScale
from bpu_kernels.ops.concat import Concat
from bpu_kernels.ops.conv import Conv2d
from bpu_kernels.ops.elementwise import AddScaled, Relu, Rescale
from bpu_kernels.ops.layout import Transpose
from bpu_kernels.ops.pool import MaxPool2d
from bpu_kernels.run import BACKENDS


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def multiplier(**changes: np.ndarray) -> Multiplier:
    fields = {"accu_right_shift": ints(0), "output_scale": ints(16384), "output_right_shift": ints(17)}
    return Multiplier(**{**fields, **changes})


def conv(outputs: int = 4, inputs: int = 3, **changes: Any) -> Conv2d:
    fields = {"weight": np.ones((outputs, 1, 1, inputs), np.int8), "multiplier": multiplier()}
    return Conv2d(**{**fields, **changes})


X = ProgramInput(name="x", spec=TensorSpec((1, 4, 4, 3), qint8), scale=(1.0,))
OUT = ProgramOutput(name="out", tensor="t")
NODE = Node(name="conv", kernel=conv(), inputs=("x",), output="t", scale=(0.5,))


def program(**changes: Any) -> Program:
    parts = {"march": March.BAYES, "inputs": (X,), "nodes": (NODE,), "outputs": (OUT,)}
    return Program(**{**parts, **changes})


def node(**changes: Any) -> dict[str, Any]:
    """Changes of the Program: its node with these fields."""
    return {"nodes": (replace(NODE, **changes),)}


def source(shape: tuple[int, ...], dtype: object = qint8, **changes: Any) -> dict[str, Any]:
    """Changes of the Program: another input, and a ReLU that takes any shape."""
    return {
        "inputs": (ProgramInput(name="x", spec=TensorSpec(shape, dtype), scale=(1.0,), **changes),),  # type: ignore[arg-type]
        "nodes": (Node(name="relu", kernel=Relu(), inputs=("x",), output="t", scale=(1.0,)),),
    }


MALFORMED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no inputs": ({"inputs": (), "nodes": (), "outputs": ()}, "program", "at least one input"),
    "unknown tensor": (node(inputs=("y",)), "conv", "no input or earlier node makes 'y'"),
    "order": (
        {"nodes": (replace(NODE, name="late", kernel=Relu(), inputs=("t",), output="u"), NODE)},
        "late",
        "no input or earlier node makes 't'",
    ),
    "node names": ({"nodes": (NODE, replace(NODE, output="u"))}, "conv", "another node has this name"),
    "tensor made twice": ({"nodes": (NODE, replace(NODE, name="again"))}, "again", "'t' is made twice"),
    "tensor named like an input": (node(output="x"), "conv", "'x' is made twice"),
    "empty name": (node(name=""), "", "expected: 1 to 1000 printable"),
    "control character": (node(name="a\x1b[2J"), "a\x1b[2J", "printable characters"),
    "arity": (node(inputs=()), "conv", "conv2d takes 1 to 2 inputs, got 0"),
    "shape rule": (node(kernel=conv(inputs=5)), "conv", "expect 5 channels"),
    "no scale": (node(scale=()), "conv", "0 scales"),
    "scales of other length": (node(scale=(1.0, 2.0)), "conv", "2 scales (expected: 1 or 4, one per channel)"),
    "scale zero": (node(scale=(0.0,)), "conv", "positive, finite floats"),
    "scale not a number": (node(scale=(float("nan"),)), "conv", "positive, finite floats"),
    "scale infinite": (node(scale=(float("inf"),)), "conv", "positive, finite floats"),
    "scale an integer": (node(scale=(1,)), "conv", "positive, finite floats"),
    "copied integers, other scale": (
        {"nodes": (replace(NODE, kernel=Relu(), scale=(0.5,)),)},
        "conv",
        "relu copies integers of scale 1, so they cannot have (0.5,) now",
    ),
    "weight type": (
        node(kernel=conv(weight=np.ones((4, 1, 1, 3), np.int16))),
        "conv",
        "numpy array of int8, got int16",
    ),
    "weight list": (node(kernel=conv(weight=[1])), "conv", "numpy array of int8, got list"),
    "weight axes": (node(kernel=conv(weight=np.ones((4, 1, 3), np.int8))), "conv", "(expected: 4 axes)"),
    "weight empty": (node(kernel=conv(weight=np.ones((4, 1, 1, 0), np.int8))), "conv", "weight is empty"),
    "parameters per channel": (
        node(kernel=conv(multiplier=multiplier(output_scale=ints(1, 2)))),
        "conv",
        "multiplier.output_scale has 2 entries (expected: 1 or 4, one per output channel)",
    ),
    "parameter axes": (
        node(kernel=conv(multiplier=multiplier(output_scale=ints(1).reshape(1, 1)))),
        "conv",
        "(expected: 1 axes)",
    ),
    "parameter type": (
        node(kernel=conv(multiplier=multiplier(output_scale=np.array([1])))),
        "conv",
        "of int32, got int64",
    ),
    "nested field": (node(kernel=conv(multiplier=None)), "conv", "multiplier must be a Multiplier, got NoneType"),
    "stride text": (node(kernel=conv(stride="11")), "conv", "stride must be a tuple, got str"),
    "stride real": (node(kernel=conv(stride=(1.0, 1))), "conv", "stride must hold integers"),
    "groups": (node(kernel=conv(groups=0)), "conv", "groups must hold integers of at least 1, got 0"),
    "flag": (node(kernel=conv(relu=1)), "conv", "relu must be bool, got 1"),
    "type field": (node(kernel=conv(out_dtype="qint8")), "conv", "out_dtype must be one of qint8, qint16, qint32"),
    "kernel class": (node(kernel=Kernel()), "conv", "Kernel is no operator"),
    "input shape": (source((1, 0, 4, 3)), "x", "expected: positive integers"),
    "input rank": (source((1,) * 11), "x", "11 dimensions"),
    "input type": (source((1, 4), "qint8"), "x", "type 'qint8'"),
    "input size": (source((2, 1024, 1024, 1024)), "x", "takes 2147483648 bytes (allowed: 1073741824)"),
    "output of nothing": ({"outputs": (ProgramOutput(name="out", tensor="u"),)}, "output out", "makes 'u'"),
    "output names": ({"outputs": (OUT, OUT)}, "output out", "another output has this name"),
    "output named like another tensor": (
        {"outputs": (ProgramOutput(name="x", tensor="t"),)},
        "output x",
        "name of another tensor than 't'",
    ),
    "metadata": ({"metadata": {"key": "\ud800"}}, "metadata 'key'", "expected a printable name and text"),
    "metadata type": ({"metadata": {"key": 1}}, "metadata 'key'", "expected a printable name and text"),
    "self-test input": (
        {"self_test": SelfTest(inputs={}, outputs={"out": np.zeros((1, 4, 4, 4), np.int8)})},
        "self-test",
        "expected the inputs x",
    ),
    "self-test input type": (
        {
            "self_test": SelfTest(
                inputs={"x": np.zeros((1, 4, 4, 3), np.int64)}, outputs={"out": np.zeros((1, 4, 4, 4), np.int8)}
            )
        },
        "self-test",
        "input x is int64, not int8",
    ),
    "self-test output": (
        {"self_test": SelfTest(inputs={"x": np.zeros((1, 4, 4, 3), np.int8)}, outputs={"out": np.zeros(4, np.int8)})},
        "self-test",
        "output out is int8(4,) (expected: qint8[1x4x4x4])",
    ),
    "self-test output name": (
        {"self_test": SelfTest(inputs={"x": np.zeros((1, 4, 4, 3), np.int8)}, outputs={})},
        "self-test",
        "outputs []",
    ),
}


@pytest.mark.parametrize(("changes", "place", "reason"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_program_is_refused(changes: dict[str, Any], place: str, reason: str) -> None:
    with pytest.raises(InvalidProgramError) as caught:
        program(**changes)
    found = {problem.place: problem.reasons for problem in caught.value.problems}
    assert any(reason in each for each in found[place]), found
    assert reason in str(caught.value)


ADD = AddScaled(input_scale=ints(1), sumin_scale=ints(1), multiplier=multiplier())

UNSUPPORTED: dict[str, tuple[dict[str, Any], str, str]] = {
    "operator of another march": (
        {"nodes": (replace(NODE, kernel=ADD, inputs=("x", "x")),)},
        "conv",
        "bayes has no add_scaled",
    ),
    "parameter range": (
        node(kernel=conv(multiplier=multiplier(accu_right_shift=ints(18)))),
        "conv",
        "accu_right_shift 18",
    ),
    "input of int32": (source((1, 4, 4, 3), qint32), "x", "input type qint32 (allowed: qint8, qint16)"),
    "unknown source": (source((1, 4, 4, 3), source="disk"), "x", "source 'disk' (allowed: ddr, pyramid, resizer)"),
    "pyramid type": (source((1, 4, 4, 3), qint16, source="pyramid"), "x", "expected: qint8[1 x height x width x 3]"),
    "pyramid channels": (source((1, 4, 4, 4), source="pyramid"), "x", "expected: qint8[1 x height x width x 3]"),
    "pyramid batch": (source((2, 4, 4, 3), source="pyramid"), "x", "expected: qint8[1 x height x width x 3]"),
    "pyramid odd": (source((1, 4, 5, 3), source="pyramid"), "x", "expected: even"),
    "resizer small": (source((1, 30, 64, 3), source="resizer"), "x", "expected: at least 32"),
}


@pytest.mark.parametrize(("changes", "place", "reason"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_program_that_the_march_cannot_run_is_refused(changes: dict[str, Any], place: str, reason: str) -> None:
    with pytest.raises(UnsupportedError, match="the march bayes cannot run this Program") as caught:
        program(**changes)
    found = {problem.place: problem.reasons for problem in caught.value.problems}
    assert any(reason in each for each in found[place]), found


def test_bernoulli2_takes_images_up_to_4096() -> None:
    changes = source((1, 4098, 32, 3), source="pyramid")
    with pytest.raises(UnsupportedError, match="height or width 4098"):
        program(**{**changes, "march": "bernoulli2"})


def test_all_problems_come_in_one_error_by_node() -> None:
    builder = ProgramBuilder("bernoulli2")
    x = builder.input("x", (1, 4, 4, 3), "qint16", 1.0)
    y = builder.add(conv(stride=(3, 3), weight=np.ones((4, 1, 1, 3), np.int8)), x, name="first", scale=1.0)
    z = builder.add(MaxPool2d(kernel=(1, 1), stride=(186, 186)), y, name="second")
    builder.output(builder.add(Transpose(axes=(0, 3, 1, 2)), z, name="third"), "out")
    with pytest.raises(UnsupportedError) as caught:
        builder.build()
    assert [problem.place for problem in caught.value.problems] == ["x", "first", "second", "third"]
    assert len(caught.value.problems[1].reasons) == 2
    assert str(caught.value).splitlines()[1].startswith("  x: input type qint16")
    assert str(Problem("a", ("b", "c"))) == "a: b; c"


def test_nodes_behind_a_wrong_one_are_not_blamed() -> None:
    with pytest.raises(InvalidProgramError) as caught:
        program(nodes=(replace(NODE, kernel=conv(inputs=9)), replace(NODE, name="b", inputs=("t",), output="u")))
    assert [problem.place for problem in caught.value.problems] == ["conv"]


def test_march_given_by_name_becomes_the_member() -> None:
    assert program(march="bayes-e").march is March.BAYES_E


def test_concat_of_other_scales_is_refused() -> None:
    other = replace(X, name="y", scale=(2.0,))
    cat = Node(name="cat", kernel=Concat(axis=3), inputs=("x", "y"), output="t", scale=(1.0,))
    with pytest.raises(InvalidProgramError, match="concat copies integers of scale 1, 2"):
        program(inputs=(X, other), nodes=(cat,))
    joined = replace(cat, scale=(1.0,) * 3 + (2.0,) * 3)
    assert program(inputs=(X, other), nodes=(joined,)).scales["t"] == joined.scale


def test_specs_scales_and_costs_are_by_name() -> None:
    made = program()
    assert made.specs == {"x": X.spec, "t": TensorSpec((1, 4, 4, 4), qint8)}
    assert made.scales == {"x": (1.0,), "t": (0.5,)}
    assert made.costs == {"conv": Cost(macs=16 * 4 * 3, parameter_bytes=12 + 3 * 4, output_bytes=64)}
    assert made.cost == made.costs["conv"]


def test_validate_finds_what_was_changed_since() -> None:
    made = program(nodes=(replace(NODE, kernel=conv()),))
    made.nodes[0].kernel.multiplier.output_scale[:] = -1  # type: ignore[attr-defined]
    with pytest.raises(UnsupportedError, match="output_scale -1"):
        made.validate()


def test_a_residual_without_scales_is_refused() -> None:
    residual = ResidualScale(sumin_scale=ints(1), sumin_left_shift=ints(0))
    with pytest.raises(InvalidProgramError, match="belong together"):
        program(**node(kernel=conv(residual=residual)))


def test_self_test_holds_for_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    tested = program().with_self_test(rng.integers(-128, 128, (1, 4, 4, 3)))
    assert tested.self_test is not None
    assert tested.self_test.inputs["x"].dtype == np.int8
    tested.check_self_test()

    def wrong(*arguments: Any) -> dict[str, Any]:
        return {name: value ^ 1 for name, value in BACKENDS["numpy"](*arguments).items()}

    monkeypatch.setitem(BACKENDS, "wrong", wrong)
    with pytest.raises(SelfTestError, match="backend wrong fails the self-test:\n  out: 64 of 64 integers differ"):
        tested.check_self_test("wrong")


def test_self_test_of_an_image_keeps_nv12() -> None:
    image = np.random.default_rng(0).integers(0, 256, 4 * 4 * 3 // 2).astype(np.uint8)
    tested = program(**source((1, 4, 4, 3), source="pyramid")).with_self_test({"x": image})
    assert tested.self_test is not None
    assert np.array_equal(tested.self_test.inputs["x"], image)
    tested.check_self_test()


def test_a_program_without_self_test_says_how_to_add_one() -> None:
    with pytest.raises(ArgumentError, match=r"add one by program\.with_self_test"):
        program().check_self_test()


def test_rescale_may_change_the_scale() -> None:
    kernel = Rescale(multiplier=multiplier(), out_dtype=qint16)
    assert program(**node(kernel=kernel)).specs["t"].dtype is qint16

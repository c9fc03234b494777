"""ProgramBuilder infers at once, makes names unique, and stores arrays in the types of the file."""

from __future__ import annotations

import numpy as np
import pytest

from bpu_kernels import InvalidProgramError, Kernel, ProgramBuilder, TensorSpec, UnsupportedError, qint8
from bpu_kernels.fields import leaves
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.ops.concat import Concat
from bpu_kernels.ops.conv import Conv2d
from bpu_kernels.ops.elementwise import Mul, Relu


def multiplier(dtype: type = np.int64) -> Multiplier:
    return Multiplier(
        accu_right_shift=np.array([0], dtype),
        output_scale=np.array([16384], dtype),
        output_right_shift=np.array([18], dtype),
    )


def pointwise(outputs: int = 4, inputs: int = 3) -> Conv2d:
    return Conv2d(weight=np.ones((outputs, 1, 1, inputs), np.int64), multiplier=multiplier())


def test_values_carry_shape_type_and_scale() -> None:
    builder = ProgramBuilder("bayes")
    x = builder.input("x", [1, 8, 8, 3], "int8", 0.5)
    y = builder.add(pointwise(), x, name="conv", scale=0.25)
    z = builder.add(Relu(), y, name="relu")
    assert (x.name, x.spec, x.scale) == ("x", TensorSpec((1, 8, 8, 3), qint8), (0.5,))
    assert (y.name, y.spec, y.scale) == ("conv", TensorSpec((1, 8, 8, 4), qint8), (0.25,))
    assert (z.name, z.scale) == ("relu", (0.25,))


def test_a_taken_name_gets_a_number() -> None:
    builder = ProgramBuilder("bayes")
    x = builder.input("x", (1, 4), "qint8", 1.0)
    names = [builder.add(Relu(), x, name=name).name for name in ("relu", "relu", "relu_1", "x")]
    assert names == ["relu", "relu_1", "relu_1_1", "x_1"]


def test_arrays_are_copied_into_the_stored_types_and_cannot_change() -> None:
    builder = ProgramBuilder("bayes")
    kernel = pointwise()
    y = builder.add(kernel, builder.input("x", (1, 2, 2, 3), "qint8", 1.0), name="conv", scale=1.0)
    builder.output(y, "y")
    (node,) = builder.build().nodes
    kernel.weight[:] = 0
    stored = {leaf.path: leaf.value for leaf in leaves(node.kernel) if leaf.is_array}
    assert {path: value.dtype.name for path, value in stored.items()} == {
        "weight": "int8",
        "multiplier.accu_right_shift": "int32",
        "multiplier.output_scale": "int32",
        "multiplier.output_right_shift": "int32",
    }
    assert stored["weight"].min() == 1
    assert not any(value.flags.writeable for value in stored.values())


def test_concat_keeps_the_scale_of_its_inputs() -> None:
    builder = ProgramBuilder("bayes")
    x = builder.input("x", (1, 4), "qint8", 0.5)
    assert builder.add(Concat(axis=1), x, x, name="cat").scale == (0.5,)


ADD_ERRORS: dict[str, tuple[Kernel, float | None, str]] = {
    "shape": (pointwise(), 1.0, "layer.conv: conv2d cannot take .* expect 3 channels"),
    "arity": (Mul(multiplier=multiplier()), 1.0, "layer.conv: mul takes 2 inputs, got 1"),
    "no scale": (pointwise(inputs=5), None, "layer.conv: conv2d sets the scale of its output; give scale="),
    "weights beyond int8": (
        Conv2d(weight=np.full((1, 1, 1, 5), 200), multiplier=multiplier()),
        1.0,
        "layer.conv: weight holds 200..200, beyond int8",
    ),
    "real weights": (
        Conv2d(weight=np.ones((1, 1, 1, 5)), multiplier=multiplier()),
        1.0,
        "layer.conv: weight must hold integers, got float64",
    ),
    "stride of one entry": (
        Conv2d(weight=np.ones((1, 1, 1, 5), np.int8), multiplier=multiplier(), stride=(1,)),
        1.0,
        "stride needs 2 entries, one per spatial axis",
    ),
    "stride zero": (
        Conv2d(weight=np.ones((1, 1, 1, 5), np.int8), multiplier=multiplier(), stride=(0, 1)),
        1.0,
        "stride must hold integers of at least 1",
    ),
}


@pytest.mark.parametrize(("kernel", "scale", "message"), ADD_ERRORS.values(), ids=ADD_ERRORS)
def test_error_starts_with_the_name_of_the_node(kernel: Kernel, scale: float | None, message: str) -> None:
    builder = ProgramBuilder("bayes")
    x = builder.input("x", (1, 4, 4, 5), "qint8", 1.0)
    with pytest.raises(InvalidProgramError, match=message):
        builder.add(kernel, x, name="layer.conv", scale=scale)


def test_value_of_another_builder_is_refused() -> None:
    x = ProgramBuilder("bayes").input("x", (1, 4), "qint8", 1.0)
    with pytest.raises(InvalidProgramError, match="relu: the value 'x' belongs to another builder"):
        ProgramBuilder("bayes").add(Relu(), x, name="relu")


def test_input_with_a_taken_name_is_refused() -> None:
    builder = ProgramBuilder("bayes")
    builder.input("x", (1, 4), "qint8", 1.0)
    with pytest.raises(InvalidProgramError, match="'x' is taken"):
        builder.input("x", (1, 4), "qint8", 1.0)


def test_unknown_march_is_refused_at_once() -> None:
    with pytest.raises(UnsupportedError, match="unknown march 'nash-e'; supported are 'bernoulli2'"):
        ProgramBuilder("nash-e")

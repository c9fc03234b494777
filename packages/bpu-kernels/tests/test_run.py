"""Running Programs: whole nets of the golden data, what inputs are taken, what is kept, and real numbers."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpu_kernels import (
    ArgumentError,
    March,
    Program,
    ProgramBuilder,
    Value,
    dequantize_outputs,
    golden,
    quant_dtype,
    quantize_inputs,
    run,
    saves,
)
from bpu_kernels.engine import native_available
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.ops.elementwise import Relu, Rescale
from bpu_kernels.ops.input import nv12_to_yuv444
from bpu_kernels.ops.pool import MaxPool2d
from bpu_kernels.program_file import loads
from bpu_kernels.run import BACKENDS
from bpu_kernels.testing import assert_integers_equal, every_integer, random_integers

GOLDEN = Path(__file__).parent / "golden"


def net(march: March, name: str) -> tuple[Program, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return a recorded net as a Program, with the recorded inputs and outputs."""
    folder = GOLDEN / march.value / "nets" / name
    graph = json.loads((folder / "graph.json").read_text())
    tensors, inputs, outputs = (
        dict(np.load(folder / f"{part}.npz", allow_pickle=False)) for part in ("tensors", "inputs", "outputs")
    )
    builder, values = ProgramBuilder(march), dict[str, Value]()
    for key, value in inputs.items():
        values[key] = builder.input(key, value.shape, quant_dtype(value.dtype), 1.0)
    for node in graph["nodes"]:
        kernel = golden.KERNEL_OF[node["op"]](node, tensors)
        given = [values[key] for key in node["inputs"]]
        values[node["output"]] = builder.add(kernel, *given, name=node["name"], scale=1.0)
    for key in graph["outputs"]:
        builder.output(values[key], key)
    return builder.build(), inputs, outputs


@pytest.mark.parametrize("backend", ["auto", "numpy"])
@pytest.mark.parametrize("name", ["residual", "separable"])
@pytest.mark.parametrize("march", list(March), ids=str)
def test_recorded_nets_give_the_recorded_integers(march: March, name: str, backend: str) -> None:
    program, inputs, outputs = net(march, name)
    got = run(loads(saves(program)), inputs, backend=backend)
    assert set(got) == set(outputs)
    for key, expected in outputs.items():
        assert_integers_equal(got[key], expected, what=key)


def chain(source: str = "ddr", shape: tuple[int, ...] = (1, 4, 6, 3)) -> Program:
    """X -> relu -> pool -> relu2, outputs "pooled" and "last"."""
    builder = ProgramBuilder("bayes")
    x = builder.input("x", shape, "qint8", 0.5, source=source)
    pooled = builder.add(MaxPool2d(kernel=(2, 2), stride=(2, 2)), builder.add(Relu(), x, name="relu"), name="pool")
    builder.output(pooled, "pooled")
    builder.output(builder.add(Relu(), pooled, name="relu2"), "last")
    return builder.build()


X = random_integers(np.random.default_rng(0), (1, 4, 6, 3))


def test_one_input_may_come_without_its_name() -> None:
    assert_integers_equal(run(chain(), X)["last"], run(chain(), {"x": X})["last"])


@pytest.mark.parametrize("dtype", ["int16", "int64", "uint8"])
def test_any_integer_type_is_taken_if_the_values_fit(dtype: str) -> None:
    value: np.ndarray = np.abs(X.astype(np.int64)).clip(0, 127).astype(dtype)
    assert_integers_equal(run(chain(), value)["last"], run(chain(), value.astype(np.int8))["last"])


def test_outputs_alone_are_returned_unless_more_is_kept() -> None:
    assert sorted(run(chain(), X)) == ["last", "pooled"]
    assert sorted(run(chain(), X, keep=["relu"])) == ["last", "pooled", "relu"]
    kept = run(chain(), X, keep=True)
    assert sorted(kept) == ["last", "pool", "pooled", "relu", "relu2"]
    assert_integers_equal(kept["relu"], np.maximum(X, 0))
    assert_integers_equal(kept["pool"], kept["pooled"])


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "shape": ({"inputs": X[0]}, r"input x: expected the shape \(1, 4, 6, 3\), got \(4, 6, 3\)"),
    "reals": ({"inputs": X.astype(np.float32)}, "got float32 .quantize_inputs makes integers of real numbers"),
    "truth values": ({"inputs": X > 0}, "expected qint8.*, got bool"),
    "range": ({"inputs": X.astype(np.int16) * 2}, "leave the range of qint8"),
    "name": ({"inputs": {"y": X}}, "expected the inputs x, got y"),
    "no name": ({"inputs": {}}, "expected the inputs x, got none"),
    "two names": ({"inputs": {"x": X, "y": X}}, "expected the inputs x, got x, y"),
    "kept": ({"inputs": X, "keep": ["relu3"]}, "keep names 'relu3'"),
    "backend": ({"inputs": X, "backend": "gpu"}, "unknown backend 'gpu'; this installation has auto, native, numpy"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_argument_is_refused_before_anything_runs(arguments: dict[str, Any], message: str) -> None:
    def progress(*_: object) -> None:
        raise AssertionError("a node ran")

    with pytest.raises(ArgumentError, match=message):
        run(chain(), progress=progress, **arguments)


def test_several_inputs_need_names() -> None:
    program, inputs, _ = net(March.BAYES, "separable")
    with pytest.raises(ArgumentError, match=f"has 2 inputs .{', '.join(inputs)}.; give a mapping by name"):
        run(program, X)


@pytest.mark.parametrize("source", ["pyramid", "resizer"])
def test_image_is_taken_as_nv12_or_as_what_the_model_sees(source: str) -> None:
    program = chain(source, (1, 32, 34, 3))
    image = np.random.default_rng(0).integers(0, 256, 32 * 34 * 3 // 2).astype(np.uint8)
    seen = nv12_to_yuv444(image, 32, 34)
    for form in (image, image.reshape(48, 34)):
        assert_integers_equal(run(program, form)["last"], run(program, seen)["last"])
    with pytest.raises(ArgumentError, match=f"from {source}: expected NV12 of 1632 bytes for 32x34"):
        run(program, np.zeros((1, 32, 34, 3), np.uint8))


def test_progress_sees_every_node_in_order() -> None:
    seen: list[tuple[str, int, int]] = []
    run(chain(), X, progress=lambda node, position, count: seen.append((node.name, position, count)))
    assert seen == [("relu", 0, 3), ("pool", 1, 3), ("relu2", 2, 3)]


def test_intermediates_are_dropped_after_their_last_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[np.ndarray]] = []
    alive: list[list[bool]] = []
    original = Relu.run

    def tracked(self: Relu, *arguments: Any) -> np.ndarray:
        alive.append([each() is not None for each in made])
        result = original(self, *arguments)
        made.append(weakref.ref(result))
        return result

    monkeypatch.setattr(Relu, "run", tracked)
    run(chain(), X, backend="numpy")
    assert alive == [[], [False]]


def test_every_backend_gives_the_same_integers() -> None:
    program, inputs, outputs = net(March.BAYES, "residual")
    for backend in BACKENDS if native_available() else ("auto", "numpy"):
        for key, value in run(program, inputs, backend=backend).items():
            assert_integers_equal(value, outputs[key], what=backend)


# Real numbers


def scaled(scale: float | list[float], shape: tuple[int, ...] = (1, 256), dtype: str = "qint8") -> Program:
    builder = ProgramBuilder("bayes")
    x = builder.input("x", shape, dtype, scale)
    identity = Multiplier(
        accu_right_shift=np.array([0]), output_scale=np.array([16384]), output_right_shift=np.array([14])
    )
    builder.output(builder.add(Rescale(multiplier=identity), x, name="y", scale=0.25), "out")
    return builder.build()


def test_quantizing_rounds_half_to_even_and_saturates() -> None:
    real = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 127.4, 127.6, -128.5, 1e9, -np.inf, np.inf])
    got = quantize_inputs(scaled(1.0, (1, 12)), real[None])["x"]
    assert got.tolist() == [[0, 2, 2, 0, -2, -2, 127, 127, -128, 127, -128, 127]]
    assert got.dtype == np.int8


@given(st.floats(1e-6, 1e6))
def test_quantizing_undoes_dequantizing(scale: float) -> None:
    every = every_integer("qint8")[None]
    real = every.astype(np.float32) * np.float32(scale)
    assert_integers_equal(quantize_inputs(scaled(scale), real)["x"], every)


def test_scales_per_channel_go_with_the_last_axis() -> None:
    real = np.ones((1, 2, 3), np.float32)
    assert quantize_inputs(scaled([1.0, 0.5, 0.25], (1, 2, 3)), real)["x"][0, 0].tolist() == [1, 2, 4]


@pytest.mark.parametrize("value", [np.full((1, 256), np.nan), np.zeros((1, 255))], ids=["NaN", "shape"])
def test_what_cannot_be_quantized_is_refused(value: np.ndarray) -> None:
    with pytest.raises(ArgumentError, match=r"input x: expected real numbers of shape \(1, 256\), without NaN"):
        quantize_inputs(scaled(1.0), value)


def test_dequantizing_multiplies_by_the_scale_of_the_tensor() -> None:
    program = scaled(1.0)
    kept = run(program, every_integer("qint8")[None], keep=["y"])
    real = dequantize_outputs(program, kept)
    assert real["out"].dtype == np.float32
    assert np.array_equal(real["out"][0], np.arange(-128, 128) * np.float32(0.25))
    assert np.array_equal(real["y"], real["out"])
    with pytest.raises(ArgumentError, match="'z' is no output or node"):
        dequantize_outputs(program, {"z": kept["y"]})

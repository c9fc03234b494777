"""Program files: what is saved comes back, equal Programs give equal bytes, and every kind of damage is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from bpu_kernels import (
    KERNELS,
    ArgumentError,
    InvalidProgramError,
    March,
    Program,
    UnsupportedError,
    load,
    loads,
    march_row,
    program_file,
    run,
    save,
    saves,
)
from bpu_kernels.testing import assert_integers_equal, program_of, random_case

METADATA_KEY = program_file.METADATA_KEY


def random_program(name: str, march: March | str, seed: int = 0) -> tuple[Program, dict[str, np.ndarray]]:
    """Return a Program of one operator with random parameters, and inputs for it."""
    kernel, inputs = random_case(name, march, np.random.default_rng(seed))
    program, named = program_of(kernel, march, inputs)
    return replace(program, metadata={"made by": "a test"}), named


RUNNABLE = [(name, march) for march in March for name in KERNELS if name not in march_row(march).refused_kernels]


@pytest.mark.parametrize(("name", "march"), RUNNABLE, ids=lambda value: str(value))
def test_every_operator_survives_a_round_trip(name: str, march: March) -> None:
    for seed in range(5):
        program, inputs = random_program(name, march, seed)
        data = saves(program)
        loaded = loads(data)
        assert saves(loaded) == data
        assert_integers_equal(run(loaded, inputs)["out"], run(program, inputs)["out"])


def small() -> Program:
    """Two nodes, a self-test, metadata."""
    program, inputs = random_program("conv2d", "bayes", 3)
    return program.with_self_test(inputs)


def test_equal_programs_give_equal_bytes() -> None:
    assert saves(small()) == saves(small())


def test_order_of_arrays_in_memory_does_not_matter() -> None:
    program = small()
    assert program.self_test is not None
    outputs = {name: np.asfortranarray(value) for name, value in program.self_test.outputs.items()}
    other = replace(program, self_test=replace(program.self_test, outputs=outputs))
    assert saves(other) == saves(program)


def test_everything_comes_back() -> None:
    program = small()
    loaded = loads(saves(program))
    assert (loaded.march, loaded.inputs, loaded.outputs) == (program.march, program.inputs, program.outputs)
    assert loaded.metadata == {"made by": "a test"}
    assert loaded.specs == program.specs
    assert loaded.scales == program.scales
    loaded.check_self_test()


def test_loaded_arrays_cannot_change() -> None:
    kernel: Any = loads(saves(small())).nodes[0].kernel
    assert not kernel.weight.flags.writeable


def test_file_is_safetensors_that_others_can_read(tmp_path: Path) -> None:
    save(small(), tmp_path / "model.bpu")
    tensors = safetensors.numpy.load_file(tmp_path / "model.bpu")
    assert tensors["node/node/weight"].dtype == np.int8
    assert "self_test/output/out" in tensors


def test_save_replaces_a_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model.bpu"
    path.write_text("old")
    save(small(), path)
    assert saves(load(path)) == saves(small())
    assert [each.name for each in tmp_path.iterdir()] == ["model.bpu"]


def test_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.bpu"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        save(small(), path)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["model.bpu"]


def test_save_refuses_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="is a folder; give the name of a file"):
        save(small(), tmp_path)


def test_load_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "model.bpu").write_bytes(b"nonsense")
    with pytest.raises(InvalidProgramError, match=r"model\.bpu: truncated"):
        load(tmp_path / "model.bpu")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "other.bpu")


# Damage, in four ways: to the bytes, to the outer header, to our header, and to our header with a new checksum.


def rebuild(header: str, tensors: dict[str, np.ndarray]) -> bytes:
    return safetensors.numpy.save(tensors, metadata={METADATA_KEY: header})


def parts(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    outer = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return json.loads(outer["__metadata__"][METADATA_KEY]), safetensors.numpy.load(data)


def edited(edit: Callable[[dict[str, Any], dict[str, np.ndarray]], object], *, rehash: bool = True) -> bytes:
    """Return the small Program's file after a change to header or tensors, with a checksum that fits."""
    header, tensors = parts(saves(small()))
    edit(header, tensors)
    if rehash:
        header["sha256"] = program_file._digest(header["program"], tensors)
    return rebuild(json.dumps(header), tensors)


def node(header: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = header["program"]["nodes"][0]
    return found


def put(path: str, value: object) -> Callable[[dict[str, Any], dict[str, np.ndarray]], object]:
    """Return an edit that sets an entry of the header; numbers in the path are list positions."""

    def edit(header: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        *way, last = (int(step) if step.isdigit() else step for step in path.split("/"))
        place: Any = header
        for step in way:
            place = place[step]
        place[last] = value

    return edit


def tensor(name: str, value: np.ndarray | None) -> Callable[[dict[str, Any], dict[str, np.ndarray]], object]:
    """Return an edit that sets or removes a tensor."""
    return lambda header, tensors: tensors.pop(name) if value is None else tensors.__setitem__(name, value)


WEIGHT = "node/node/weight"
SCALE = "node/node/multiplier.output_scale"

EDITS: dict[str, tuple[Callable[[dict[str, Any], dict[str, np.ndarray]], object], str]] = {
    "format": (put("format", "onnx"), "expected the format 'bpu-program', got 'onnx'"),
    "version": (put("version", 2), "file version 2; this release of bpu-kernels reads version 1"),
    "version true": (put("version", True), "file version True"),
    "header key": (put("more", 1), "expected format, version, sha256 and program"),
    "program no object": (put("program", []), "program: expected an object, got list"),
    "program key": (put("program/more", 1), r"program: unknown \['more'\]"),
    "program key missing": (lambda h, t: h["program"].pop("nodes"), r"program: missing \['nodes'\]"),
    "march": (put("program/march", "nash-e"), "unknown march 'nash-e'; known are bernoulli2, bayes, bayes-e"),
    "march no text": (put("program/march", 7), "march: expected text, got int"),
    "march in capitals": (put("program/march", "BAYES"), "unknown march 'BAYES'"),
    "inputs no list": (put("program/inputs", {}), "inputs: expected a list, got dict"),
    "input type": (put("program/inputs/0/dtype", "qint4"), "unknown type 'qint4'; known are qint8, qint16, qint32"),
    "input shape text": (put("program/inputs/0/shape", "1x2"), "input 0 shape: expected a list, got str"),
    "input shape real": (put("program/inputs/0/shape/1", 2.5), "expected: positive integers"),
    "input shape true": (put("program/inputs/0/shape/0", True), "expected: positive integers"),
    "input shape huge": (put("program/inputs/0/shape/1", 10**18), "bytes .allowed"),
    "input scale an integer": (put("program/inputs/0/scale", [1]), "input 0 scale: expected real numbers"),
    "input scale negative": (put("program/inputs/0/scale", [-1.0]), "positive, finite floats"),
    "operator": (put("program/nodes/0/op", "exec"), "node: unknown operator 'exec'; known are add, "),
    "operator no text": (put("program/nodes/0/op", None), "node 0 op: expected text, got NoneType"),
    "field": (put("program/nodes/0/fields/more", 1), r"node: unknown \['more'\]"),
    "field missing": (lambda h, t: node(h)["fields"].pop("stride"), r"node: missing \['stride'\]"),
    "nested no object": (put("program/nodes/0/fields/multiplier", 3), "node.multiplier: expected an object"),
    "nested null": (put("program/nodes/0/fields/multiplier", None), "node.multiplier: expected an object"),
    "stride text": (put("program/nodes/0/fields/stride", "1"), "stride must be a tuple, got str"),
    "stride nested": (put("program/nodes/0/fields/stride", [[1], [1]]), "stride must hold integers"),
    "stride huge": (put("program/nodes/0/fields/stride", [2**40, 1]), "stride must hold integers"),
    "groups true": (put("program/nodes/0/fields/groups", True), "groups must hold integers"),
    "relu number": (put("program/nodes/0/fields/relu", 0), "relu must be bool"),
    "out_dtype": (put("program/nodes/0/fields/out_dtype", "float32"), "out_dtype must be one of"),
    "out_dtype list": (put("program/nodes/0/fields/out_dtype", []), "out_dtype must be one of"),
    "node inputs": (put("program/nodes/0/inputs", [["x0"]]), "node inputs: expected text, got list"),
    "node input unknown": (put("program/nodes/0/inputs/0", "y"), "no input or earlier node makes 'y'"),
    "node name": (put("program/nodes/0/name", "other"), "the tensor 'node/other/"),
    "output tensor": (put("program/outputs/0/tensor", "y"), "no input or node makes 'y'"),
    "metadata number": (put("program/metadata/size", 3), "metadata 'size': expected text, got int"),
    "self-test number": (put("program/self_test", 1), "self_test: expected true or false, got int"),
    "self-test left over": (put("program/self_test", False), "tensors that nothing uses: 'self_test/input/x0'"),
    "tensor missing": (tensor(WEIGHT, None), "the tensor 'node/node/weight' is missing"),
    "tensor left over": (tensor("spare", np.zeros(1, np.int8)), "tensors that nothing uses: 'spare'"),
    "tensor type": (tensor(SCALE, np.ones(1, np.int16)), "multiplier.output_scale must be a numpy array of int32"),
    "tensor of reals": (tensor(SCALE, np.ones(1, np.float32)), "has type F32 .Programs store U8, I8, I16, I32"),
    "tensor shape": (tensor(SCALE, np.ones((1, 1), np.int32)), "multiplier.output_scale has shape"),
    "tensor length": (tensor(SCALE, np.ones(99, np.int32)), "multiplier.output_scale has 99 entries"),
    "tensor empty": (tensor(SCALE, np.ones(0, np.int32)), "multiplier.output_scale is empty"),
    "self-test shape": (tensor("self_test/output/out", np.zeros(3, np.int8)), "self-test: output out is int8"),
}


@pytest.mark.parametrize(("edit", "message"), EDITS.values(), ids=EDITS)
def test_edited_file_with_a_right_checksum_is_refused(
    edit: Callable[[dict[str, Any], dict[str, np.ndarray]], object], message: str
) -> None:
    with pytest.raises(InvalidProgramError, match=message):
        loads(edited(edit))


def test_parameter_beyond_the_march_is_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="output_scale 99999"):
        loads(edited(tensor(SCALE, np.full(1, 99999, np.int32))))


@pytest.mark.parametrize(
    "edit",
    [put("program/nodes/0/scale", [0.25]), tensor(WEIGHT, np.zeros((1, 1, 1, 1), np.int8)), put("sha256", "0" * 64)],
    ids=["scale", "weight", "checksum"],
)
def test_edited_file_with_the_old_checksum_is_refused(
    edit: Callable[[dict[str, Any], dict[str, np.ndarray]], object],
) -> None:
    with pytest.raises(InvalidProgramError, match="does not match its checksum"):
        loads(edited(edit, rehash=False))


def header_text(replace: Callable[[str], str]) -> bytes:
    header, tensors = parts(saves(small()))
    return rebuild(replace(json.dumps(header)), tensors)


TEXTS = {
    "no JSON": (lambda text: text[:-1], "no JSON"),
    "a list": (lambda text: "[]", "no JSON object"),
    "key twice": (lambda text: text.replace('{"format"', '{"version": 1, "format"'), "a key is given twice"),
    "not a number": (lambda text: text.replace("[1.0]", "[NaN]"), "NaN is no number"),
    "infinity": (lambda text: text.replace("[1.0]", "[-Infinity]"), "-Infinity is no number"),
    "too large": (lambda text: text.replace("[1.0]", "[1e999]"), "1e999 is too large"),
    "endless integer": (lambda text: text.replace("[1.0]", "[" + "9" * 100_000 + "]"), "an integer of 100000 digits"),
    "nested lists": (lambda text: text.replace("[1.0]", "[" * 100_000 + "]" * 100_000), "nested|no JSON"),
    "nested objects": (lambda text: text.replace("[1.0]", '{"a":' * 50_000 + "1" + "}" * 50_000), "nested|no JSON"),
}


@pytest.mark.parametrize(("replace", "message"), TEXTS.values(), ids=TEXTS)
def test_header_that_is_not_ours_is_refused(replace: Callable[[str], str], message: str) -> None:
    with pytest.raises(InvalidProgramError, match=message):
        loads(header_text(replace))


def outer(header: bytes, body: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + body


GOOD = saves(small())

BYTES = {
    "empty": (b"", "truncated"),
    "short": (GOOD[:7], "truncated"),
    "header cut": (GOOD[:100], "truncated"),
    "body cut": (GOOD[:-1], "truncated"),
    "more": (GOOD + b"\0", "truncated, or no Program file"),
    "length beyond the file": ((2**63).to_bytes(8, "little") + GOOD[8:], "truncated"),
    "text": (b"Once upon a time there was a Program.", "truncated"),
    "outer header no JSON": (outer(b"{"), "no JSON"),
    "outer header a list": (outer(b"[]"), "no JSON object"),
    "outer header not UTF-8": (outer(b'{"\xff":1}'), "no JSON"),
    "no metadata": (outer(b"{}"), "metadata must hold 'bpu_program' and no more"),
    "other metadata": (outer(b'{"__metadata__":{"format":"pt"}}'), "metadata must hold"),
    "metadata a number": (outer(b'{"__metadata__":{"bpu_program":1}}'), "metadata must hold"),
    "tensor twice": (
        outer(
            b'{"__metadata__":{"bpu_program":"{}"},"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},'
            b'"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}}',
            b"1",
        ),
        "a key is given twice",
    ),
    "tensor beyond the file": (
        outer(b'{"__metadata__":{"bpu_program":"{}"},"a":{"dtype":"I8","shape":[9],"data_offsets":[0,9]}}', b"1"),
        "truncated",
    ),
    "tensor of overflowing size": (
        outer(
            b'{"__metadata__":{"bpu_program":"{}"},"a":{"dtype":"I32","shape":[4294967296,4294967296],'
            b'"data_offsets":[0,1]}}',
            b"1",
        ),
        "truncated, or no Program file",
    ),
    "half a surrogate": (outer(b'{"__metadata__":{"bpu_program":"{\\"a\\":\\"\\ud800\\"}"}}'), "no "),
}


@pytest.mark.parametrize(("data", "message"), BYTES.values(), ids=BYTES)
def test_damaged_bytes_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidProgramError, match=message):
        loads(data)


def test_sizes_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_file, "MOST_HEADER_BYTES", 100)
    with pytest.raises(InvalidProgramError, match=r"the header takes .* bytes .allowed: 100"):
        loads(GOOD)
    monkeypatch.setattr(program_file, "MOST_FILE_BYTES", 100)
    (tmp_path / "model.bpu").write_bytes(GOOD)
    with pytest.raises(InvalidProgramError, match="larger than 100 bytes"):
        load(tmp_path / "model.bpu")
    with pytest.raises(InvalidProgramError, match="larger than 100 bytes"):
        saves(small())

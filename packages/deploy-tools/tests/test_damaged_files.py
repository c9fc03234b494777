"""Thousands of damaged files: each gives an answer or one of our errors; no crash, no hang, nothing is executed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bpu_kernels
from bpu_deploy_tools import Manifest, ManifestError, split_program
from bpu_deploy_tools.cli.main import main
from bpu_deploy_tools.hbdk import (
    CompileOptions,
    HbdkError,
    Limits,
    build_hbir,
    compile_programs,
    find_toolkit,
    perf_hbm,
    read_hbm,
    simulate,
)
from bpu_deploy_tools.hbdk.hbir import plan
from bpu_deploy_tools.hbdk.hbm import describe, models_of
from bpu_kernels import ArgumentError, Program
from bpu_kernels.testing import random_program

LIMITS = Limits(seconds=60, memory_gib=8)
ODD_VALUES: tuple[Any, ...] = (None, True, -1, 10**30, 1e999, float("nan"), "", "\0\x1b[31m", [], [[]], {}, {"a": 1})
"""What a field of a JSON text may hold instead of what is expected."""


def damaged_bytes(rng: np.random.Generator, data: bytes) -> bytes:
    """Flip, delete, repeat or overwrite some bytes at random places."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        place, length = int(rng.integers(max(len(changed), 1))), int(rng.integers(1, 64))
        match int(rng.integers(5)):
            case 0:
                changed[place : place + 1] = bytes([int(rng.integers(256))])
            case 1:
                del changed[place:]
            case 2:
                del changed[place : place + length]
            case 3:
                changed[place:place] = changed[place : place + length] * int(rng.integers(1, 9))
            case _:
                changed[place : place + length] = rng.bytes(length)
    return bytes(changed)


def damaged_json(rng: np.random.Generator, text: str) -> str:
    """Replace, drop or repeat some values anywhere in a JSON text."""
    content = json.loads(text)
    for _ in range(int(rng.integers(1, 4))):
        place: Any = content
        while isinstance(place, (dict, list)) and place:
            key: Any = list(place)[int(rng.integers(len(place)))] if isinstance(place, dict) else 0
            key = key if isinstance(place, dict) else int(rng.integers(len(place)))
            inner = place[key]
            if not isinstance(inner, (dict, list)) or not inner or rng.random() < 0.3:
                if rng.random() < 0.3:
                    del place[key]
                else:
                    place[key] = ODD_VALUES[int(rng.integers(len(ODD_VALUES)))]
                break
            place = inner
    return json.dumps(content)


def program() -> Program:
    return random_program("bayes", np.random.default_rng(4))[0]


def description_text() -> str:
    """Return what the disassembler tells of a model that we compiled."""
    made = program()
    tensor = {"valid dim": [1, 2, 3, 4], "element type name": "int8", "input source": "DDR", "feature name": "f"}
    features = {"input features": [tensor] * len(made.inputs), "output features": [tensor] * len(made.outputs)}
    return json.dumps([{"model name": "net", "description": describe(made, "net", plan(made)), **features}])


def description_of_others() -> str:
    """Return what the disassembler tells of a model that others compiled."""
    (model,) = json.loads(description_text())
    return json.dumps([model | {"description": "theirs"}])


READERS: dict[str, tuple[Callable[[], str], Callable[[str], object], type[Exception]]] = {
    "manifest": (
        lambda: split_program(program(), [program().nodes[1].name]).manifest.to_json(),
        Manifest.from_json,
        ManifestError,
    ),
    "description": (description_text, models_of, HbdkError),
    "description of others": (description_of_others, models_of, HbdkError),
}
"""What is read -> a good text, its reader, the error of a bad one."""


@pytest.mark.parametrize("name", READERS)
def test_damaged_text_gives_an_answer_or_the_readers_own_error(name: str) -> None:
    make, read, error = READERS[name]
    text, rng = make(), np.random.default_rng(0)
    read(text)
    told = []
    for number in range(1500):
        damaged = damaged_json(rng, text) if number % 2 else damaged_bytes(rng, text.encode()).decode(errors="replace")
        try:
            read(damaged)
        except error as refusal:
            told.append(str(refusal))
    assert len(told) > 100
    assert all(told)


def test_damaged_description_inside_a_model_gives_an_answer_or_an_error() -> None:
    (model,) = json.loads(description_text())
    rng = np.random.default_rng(1)
    for _ in range(1500):
        inner = damaged_json(rng, model["description"])
        try:
            models_of(json.dumps([model | {"description": inner}]))
        except HbdkError:
            continue


COMMANDS = ("show", "check", "run", "export", "split", "insert-yuv")


def test_command_line_answers_a_damaged_program_with_an_exit_code_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, rng, path = bpu_kernels.saves(program()), np.random.default_rng(2), tmp_path / "damaged.bpu"
    rest = {
        "run": ["--input", str(path)],
        "export": ["--output", str(tmp_path / "net.svg")],
        "split": ["--cut", "nowhere", "--output", str(tmp_path)],
        "insert-yuv": ["--output", str(tmp_path / "camera.bpu")],
    }
    for number in range(120):
        path.write_bytes(damaged_bytes(rng, content))
        command = COMMANDS[number % len(COMMANDS)]
        code = main([command, str(path), *rest.get(command, [])])
        told = capsys.readouterr()
        assert code in (0, 1, 2)
        assert code == 0 or told.err.startswith("error: ")


PER_ROUND = 60


def answer(command: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> str:
    """Return what a use of a damaged file tells as its error; empty if it gives an answer."""
    try:
        code = command()
    except (HbdkError, ArgumentError) as error:
        return str(error)
    told = capsys.readouterr().err
    assert code in (0, 1, 2) or not isinstance(code, int)
    assert code in (0, None) or not isinstance(code, int) or told.startswith("error: ")
    return told if code in (1, 2) else ""


@pytest.mark.hbdk
def test_damaged_hbm_gives_an_answer_or_our_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage_seed: int
) -> None:
    made, x = random_program("bayes", np.random.default_rng(4))
    good, bad, given = tmp_path / "good.hbm", tmp_path / "bad.hbm", tmp_path / "x.npy"
    compile_programs({"net": made}, good, CompileOptions(opt="O0", jobs=2), limits=LIMITS)
    np.save(given, x)
    content, rng = good.read_bytes(), np.random.default_rng([3, damage_seed])
    used = len(content.rstrip(b"\0"))  # the file is filled up with zeros
    bounded = ["--seconds", "60", "--memory", "8"]
    uses: tuple[Callable[[], object], ...] = (
        lambda: read_hbm(bad, limits=LIMITS),
        lambda: simulate(bad, {"x": x}, limits=LIMITS),
        lambda: perf_hbm(bad, tmp_path / "reports", limits=LIMITS),
        lambda: main(["perf", str(bad), "--output", str(tmp_path / "reports"), *bounded]),
        lambda: main(["simulate", str(bad), "--input", str(given), *bounded]),
    )
    told = []
    for number in range(PER_ROUND):
        bad.write_bytes(damaged_bytes(rng, content[:used]) + content[used:])
        told.append(answer(uses[number % len(uses)], capsys))
    assert any(told)


@pytest.mark.hbdk
def test_damaged_hbir_is_refused_or_checked_within_the_limits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage_seed: int
) -> None:
    toolkit, made = find_toolkit(), program()
    good, bad, rng = tmp_path / "good.hbir", tmp_path / "bad.hbir", np.random.default_rng([5, damage_seed])
    build_hbir(made, good)
    content = good.read_bytes()
    common = ["-m", str(bad), "-f", "hbir", "--march", "bayes", "-i", "ddr"]
    commands = (
        ["hbdk-model-check", *common],
        ["hbdk-cc", *common, "--O0", "-n", "net", "-o", str(tmp_path / "made.hbm")],
    )
    told = []
    for number in range(PER_ROUND):
        bad.write_bytes(damaged_bytes(rng, content))
        command = commands[number % len(commands)]
        told.append(answer(lambda command=command: toolkit.run(command, cwd=tmp_path, limits=LIMITS), capsys))  # type: ignore[misc]
    assert any(told)

"""The command line: what it prints, its exit codes, and one line on stderr for what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bpu_kernels import Program, ProgramBuilder, run, save, saves
from bpu_kernels.cli import main
from bpu_kernels.ops.elementwise import Relu
from bpu_kernels.ops.pool import MaxPool2d

GOLDEN = Path(__file__).parent / "golden"
X = np.random.default_rng(0).integers(-128, 128, (1, 4, 4, 3)).astype(np.int8)


def program(source: str = "ddr") -> Program:
    builder = ProgramBuilder("bayes")
    x = builder.input("x", (1, 4, 4, 3), "qint8", 0.5, source=source)
    y = builder.add(Relu(), x, name="stem/relu")
    builder.output(builder.add(MaxPool2d(kernel=(2, 2), stride=(2, 2)), y, name="pool"), "out")
    return builder.build()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Program with and without self-test, and an input as .npy and as raw bytes."""
    save(program(), tmp_path / "plain.bpu")
    save(program().with_self_test(X), tmp_path / "tested.bpu")
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "x.bin").write_bytes(X.tobytes())
    return tmp_path


def test_run_prints_a_line_per_output(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(folder / "plain.bpu"), "--input", str(folder / "x.npy")]) == 0
    value = run(program(), X)["out"]
    assert capsys.readouterr().out == f"out  int8[1, 2, 2, 3] {value.min()}..{value.max()}\n"


@pytest.mark.parametrize("given", ["x.npy", "x.bin"])
def test_run_writes_outputs_and_kept_nodes(folder: Path, given: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--input", f"x={folder / given}", "--output", str(folder / "results"), "--keep", "stem/relu"]
    assert main(["run", str(folder / "plain.bpu"), *arguments]) == 0
    assert np.array_equal(np.load(folder / "results" / "out.npy"), run(program(), X)["out"])
    assert np.array_equal(np.load(folder / "results" / "stem%2Frelu.npy"), np.maximum(X, 0))
    assert "-> " in capsys.readouterr().out


def test_run_prints_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(folder / "plain.bpu"), "--input", str(folder / "x.npy"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["out"]["values"] == run(program(), X)["out"].tolist()
    assert printed["out"]["shape"] == [1, 2, 2, 3]


def test_run_prints_json_with_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--input", str(folder / "x.npy"), "--json", "--output", str(folder / "results")]
    assert main(["run", str(folder / "plain.bpu"), *arguments]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["out"]["file"] == str(folder / "results" / "out.npy")
    assert "values" not in printed["out"]


def test_run_reads_nv12_of_a_camera_input(folder: Path) -> None:
    save(program("pyramid"), folder / "camera.bpu")
    image = np.arange(24, dtype=np.uint8)
    (folder / "image.nv12").write_bytes(image.tobytes())
    arguments = ["--input", str(folder / "image.nv12"), "--output", str(folder / "results")]
    assert main(["run", str(folder / "camera.bpu"), *arguments]) == 0
    assert np.array_equal(np.load(folder / "results" / "out.npy"), run(program("pyramid"), image)["out"])


def test_show_prints_a_table_or_the_graph(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(folder / "plain.bpu")]) == 0
    assert "max_pool2d  pool" in capsys.readouterr().out
    assert main(["show", str(folder / "plain.bpu"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nodes"][1]["fields"]["kernel"] == [2, 2]


def test_check_runs_the_self_test(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(folder / "tested.bpu")]) == 0
    assert "self-test equal on numpy" in capsys.readouterr().out
    assert main(["check", str(folder / "plain.bpu")]) == 0
    assert "carries no self-test" in capsys.readouterr().out


def test_check_fails_where_the_self_test_differs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tested = program().with_self_test(X)
    assert tested.self_test is not None
    tested.self_test.outputs["out"][0, 0, 0, 0] ^= 1
    save(tested, folder / "wrong.bpu")
    assert main(["check", str(folder / "wrong.bpu")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: backend numpy fails the self-test:; out: 1 of 12 integers differ")
    assert error.count("\n") == 1


def test_golden_checks_recorded_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["golden", str(GOLDEN / "bayes" / "nets")]) == 0
    assert "0 differ" in capsys.readouterr().out


def test_golden_fails_where_data_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(GOLDEN / "bayes" / "relu.npz") as stored:
        arrays = dict(stored)
    arrays["case0/out"] = ~arrays["case0/out"]
    np.savez(tmp_path / "relu.npz", **arrays)
    assert main(["golden", str(tmp_path)]) == 1
    assert "DIFFERS" in capsys.readouterr().out


BAD = {
    "no such file": (["show", "{folder}/none.bpu"], "No such file"),
    "no Program": (["show", "{folder}/x.npy"], "x.npy: truncated"),
    "a folder": (["show", "{folder}"], "Is a directory"),
    "no such input": (["run", "{folder}/plain.bpu", "--input", "{folder}/none.npy"], "No such file"),
    "input of another name": (["run", "{folder}/plain.bpu", "--input", "y={folder}/x.npy"], "expected each of x once"),
    "input twice": (
        ["run", "{folder}/plain.bpu", "--input", "x={folder}/x.npy", "--input", "x={folder}/x.npy"],
        "expected each of x once",
    ),
    "raw input of other size": (["run", "{folder}/plain.bpu", "--input", "{folder}/plain.bpu"], "which are not qint8"),
    "no array": (["run", "{folder}/plain.bpu", "--input", "{folder}/bad.npy"], "is no .npy file of numbers"),
    "kept": (["run", "{folder}/plain.bpu", "--input", "{folder}/x.npy", "--keep", "z"], "keep names 'z'"),
    "no golden data": (["golden", "{folder}"], "no golden data"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bad.npy").write_bytes(b"nothing")
    assert main([argument.replace("{folder}", str(folder)) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_several_inputs_need_names(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    builder = ProgramBuilder("bayes")
    for name in ("a", "b"):
        builder.output(
            builder.add(Relu(), builder.input(name, (1, 4), "qint8", 1.0), name=f"relu_{name}"), f"out_{name}"
        )
    save(builder.build(), folder / "two.bpu")
    assert main(["run", str(folder / "two.bpu"), "--input", "x.npy"]) == 2
    assert "has the inputs a, b; write --input NAME=x.npy" in capsys.readouterr().err


def test_names_cannot_command_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = saves(program()).replace(b"stem/relu", b"stem\x1brelu")
    (folder / "escape.bpu").write_bytes(data)
    assert main(["show", str(folder / "escape.bpu")]) == 2
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["fly"], ["run", "x"], ["show"]], ids=str)
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [["-m", "bpu_kernels", "golden"], ["-m", "bpu_kernels.golden"]], ids=["package", "golden"]
)
def test_modules_run_as_programs(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *command, str(GOLDEN / "bayes" / "nets")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("0 differ\n")

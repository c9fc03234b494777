"""The command line: what each command prints, and the exit codes that scripts can use."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import bpu_kernels
from bpu_deploy_tools import SurgeryError, lower, with_yuv_input
from bpu_deploy_tools.cli.main import app, main
from bpu_deploy_tools.hbdk import find_toolkit
from bpu_qat_nn import convert_fx
from bpu_qat_nn.testing import NETS, calibrate, prepared, real_inputs
from bpu_qconfig import march_scope


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    case = NETS["resnet"]
    observed = prepared(case.model(), "bayes")
    calibrate(observed, case.shapes)
    with march_scope("bayes"):
        made = lower(convert_fx(observed), real_inputs(((1, 3, 32, 32),), 0))
    path = tmp_path_factory.mktemp("cli") / "net.bpu"
    bpu_kernels.save(made, path)
    return path


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_show_prints_the_operators(program: Path) -> None:
    result = invoke("show", program)
    assert result.exit_code == 0
    assert "conv2d" in result.output


def test_check_accepts_a_program(program: Path) -> None:
    assert invoke("check", program).exit_code == 0


def test_compare_of_a_model_with_itself_finds_no_difference(program: Path) -> None:
    assert invoke("compare", program, program).exit_code == 0


def test_compare_names_a_difference_and_exits_with_1(program: Path, tmp_path: Path) -> None:
    model = bpu_kernels.load(program)
    first = model.nodes[0]
    kernel: Any = first.kernel
    silent = dataclasses.replace(kernel, weight=np.zeros_like(kernel.weight))
    nodes = (dataclasses.replace(first, kernel=silent), *model.nodes[1:])
    bpu_kernels.save(dataclasses.replace(model, nodes=nodes), tmp_path / "other.bpu")
    assert invoke("compare", program, tmp_path / "other.bpu").exit_code == 1


def test_run_writes_the_integers_of_the_program(program: Path, tmp_path: Path) -> None:
    model = bpu_kernels.load(program)
    x = np.random.default_rng(0).integers(-128, 128, model.inputs[0].spec.shape).astype(np.int8)
    np.save(tmp_path / "x.npy", x)
    assert invoke("run", program, "--input", tmp_path / "x.npy", "--output", tmp_path).exit_code == 0
    for name, value in bpu_kernels.run(model, x).items():
        assert np.array_equal(np.load(tmp_path / f"{name}.npy"), value)


def test_camera_is_inserted_once(program: Path, tmp_path: Path) -> None:
    camera = tmp_path / "camera.bpu"
    assert invoke("insert-yuv", program, "--output", camera).exit_code == 0
    assert bpu_kernels.load(camera).inputs[0].source == "pyramid"
    with pytest.raises(SurgeryError, match="comes from the pyramid already"):
        with_yuv_input(bpu_kernels.load(camera))


def test_split_writes_stages_that_give_the_integers_of_the_whole(program: Path, tmp_path: Path) -> None:
    model = bpu_kernels.load(program)
    cut = model.nodes[2].name
    result = invoke("split", program, "--cut", cut, "--output", tmp_path, "--json")
    assert result.exit_code == 0
    assert [each["name"] for each in json.loads(result.output)["segments"]] == ["stage1", "stage2"]
    x = np.random.default_rng(0).integers(-128, 128, model.inputs[0].spec.shape).astype(np.int8)
    first, second = (bpu_kernels.load(tmp_path / f"stage{number}.bpu") for number in (1, 2))
    between = bpu_kernels.run(first, x)
    got = bpu_kernels.run(second, {each.name: between[each.name] for each in second.inputs})
    for name, value in bpu_kernels.run(model, x).items():
        assert np.array_equal(got[name], value)


def test_split_at_an_unknown_node_exits_with_2(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["split", str(program), "--cut", "nowhere"]) == 2
    assert "no node 'nowhere'" in capsys.readouterr().err


@pytest.mark.parametrize("ending", [".onnx", ".svg"])
def test_export_writes_a_file_by_its_ending(ending: str, program: Path, tmp_path: Path) -> None:
    if ending == ".onnx":
        pytest.importorskip("onnx")
    target = tmp_path / f"net{ending}"
    result = invoke("export", program, "--output", target, "--json")
    assert result.exit_code == 0
    assert json.loads(result.output) == {"file": str(target), "bytes": target.stat().st_size}


def test_export_to_an_unknown_ending_exits_with_2(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(program), "--output", "net.tflite"]) == 2
    assert "expected a file ending in .hbir, .onnx, .svg" in capsys.readouterr().err


JSON_COMMANDS: dict[str, list[str]] = {
    "show": ["show", "PROGRAM"],
    "run": ["run", "PROGRAM", "--input", "INPUT"],
    "check": ["check", "PROGRAM"],
    "compare": ["compare", "PROGRAM", "PROGRAM"],
    "insert-yuv": ["insert-yuv", "PROGRAM", "--output", "FOLDER/camera.bpu"],
    "doctor": ["doctor"],
}


@pytest.mark.parametrize("command", JSON_COMMANDS)
def test_command_prints_one_json_text(command: str, program: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "input.npy", np.zeros(bpu_kernels.load(program).inputs[0].spec.shape, np.int8))
    places = {"PROGRAM": str(program), "INPUT": str(tmp_path / "input.npy")}
    arguments = [places.get(each, each.replace("FOLDER", str(tmp_path))) for each in JSON_COMMANDS[command]]
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0
    json.loads(result.output)


def test_every_command_that_prints_can_print_json() -> None:
    for command in app.registered_commands:
        assert command.callback is not None
        assert "as_json" in inspect.signature(command.callback).parameters, command.callback


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_of_the_shell_names_the_command(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    result = CliRunner().invoke(app, ["--show-completion", shell], prog_name="bpu")
    assert result.exit_code == 0
    assert "_BPU_COMPLETE" in result.output


def test_doctor_speaks_json() -> None:
    result = invoke("doctor", "--json")
    assert result.exit_code == 0
    assert "Python" in [each["what"] for each in json.loads(result.output)]


def test_doctor_says_what_is_wrong_with_a_python_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HBDK_PYTHON", "/nonexistent/python")
    find_toolkit.cache_clear()
    try:
        result = invoke("doctor", "--json")
    finally:
        find_toolkit.cache_clear()
    assert result.exit_code == 0
    assert "/nonexistent/python" in result.output


@pytest.mark.parametrize("command", ["show", "check"])
def test_unreadable_file_is_named_and_exits_with_2(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.bpu"
    broken.write_bytes(np.random.default_rng(0).bytes(500))
    assert main([command, str(broken)]) == 2
    assert "broken.bpu" in capsys.readouterr().err

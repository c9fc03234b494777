"""The command line: what each command prints, and the exit codes that scripts can use."""

from __future__ import annotations

import dataclasses
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

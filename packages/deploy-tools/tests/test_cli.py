"""The command line: what each command prints, and the exit codes that scripts can use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import bpu_kernels
from bpu_deploy_tools import lower
from bpu_deploy_tools.cli.main import app, main
from bpu_qat_nn import convert_fx
from bpu_qat_nn.testing import NETS, calibrate, prepared, real_inputs
from bpu_qconfig import march_scope


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    case = NETS["resnet"]
    observed = prepared(case.model(), "bayes")
    calibrate(observed, case.shapes)
    with march_scope("bayes"):
        made = lower(convert_fx(observed), real_inputs(case.shapes, 0))
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


def test_doctor_speaks_json() -> None:
    result = invoke("doctor", "--json")
    assert result.exit_code in (0, 1)
    json.loads(result.output)


@pytest.mark.parametrize("command", ["show", "check"])
def test_unreadable_file_is_named_and_exits_with_2(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.bpu"
    broken.write_bytes(np.random.default_rng(0).bytes(500))
    assert main([command, str(broken)]) == 2
    assert "broken.bpu" in capsys.readouterr().err

"""The vendor's tools as users call them: check, compile, measure, simulate; from Python and on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import bpu_kernels
from bpu_deploy_tools import (
    HbdkError,
    Limits,
    OptionError,
    check_model,
    compile_model,
    export_hbir,
    lower,
    perf_model,
    simulate,
    split_program,
)
from bpu_deploy_tools.cli.main import app
from bpu_deploy_tools.hbdk import perf_hbm, read_hbm
from bpu_kernels import Program, ProgramBuilder, UnsupportedError
from bpu_kernels.ops.elementwise import Relu
from bpu_qat_nn import QuantizedGraphModule, convert_fx
from bpu_qat_nn.testing import NETS, calibrate, prepared, real_inputs
from bpu_qconfig import march_scope

pytestmark = pytest.mark.hbdk

SHAPES = ((1, 3, 32, 32),)


@pytest.fixture(scope="module")
def model() -> QuantizedGraphModule:
    case = NETS["resnet"]
    observed = prepared(case.model(), "bayes")
    calibrate(observed, case.shapes)
    with march_scope("bayes"):
        return convert_fx(observed)


@pytest.fixture(scope="module")
def program(model: QuantizedGraphModule) -> Program:
    with march_scope("bayes"):
        return lower(model, real_inputs(SHAPES, 0))


@pytest.fixture(scope="module")
def files(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with net.bpu, net.hbm and the input x.npy."""
    folder = tmp_path_factory.mktemp("board")
    bpu_kernels.save(program, folder / "net.bpu")
    compile_model(program, None, folder / "net.hbm", progressbar=False, jobs=2)
    np.save(folder / "x.npy", one_input(program))
    return folder


def one_input(program: Program) -> np.ndarray:
    return np.random.default_rng(0).integers(-128, 128, program.inputs[0].spec.shape).astype(np.int8)


def bpu(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_converted_model_passes_the_checkers(model: QuantizedGraphModule, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_model(model, real_inputs(SHAPES, 0)) == 0
    assert "not supported" not in capsys.readouterr().out


def test_what_cannot_be_built_is_told_before_the_compiler_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    builder = ProgramBuilder("bayes")
    x, _ = (builder.input(name, (1, 4, 4, 2), "qint8", 1.0) for name in ("x", "unused"))
    builder.output(builder.add(Relu(), x, name="relu", scale=1.0), "y")
    assert check_model(builder.build(), None) == 1
    assert "unused: no output depends on this input" in capsys.readouterr().out
    with pytest.raises(UnsupportedError):
        compile_model(builder.build(), None, tmp_path / "net.hbm", progressbar=False)
    assert not list(tmp_path.iterdir())


def test_figures_are_those_of_the_report_and_layers_have_the_paths_of_the_model(files: Path, program: Program) -> None:
    (figures,) = perf_hbm(files / "net.hbm", files / "reports").values()
    assert figures.fps > 0
    assert figures["summary"]["FPS"] == figures.fps
    assert json.loads(figures.json.read_text()) == dict(figures)
    assert figures.html.is_file()
    paths = {layer.path for layer in figures.layers}
    assert {node.name for node in program.nodes if node.kernel.name == "conv2d"} <= paths


def test_model_without_debug_has_figures_but_no_layers(program: Program, tmp_path: Path) -> None:
    compile_model(program, None, tmp_path / "net.hbm", progressbar=False, debug=False, jobs=2)
    (figures,) = perf_hbm(tmp_path / "net.hbm", tmp_path).values()
    assert figures.latency_us > 0
    assert figures.layers == ()


def test_perf_model_prints_a_table_and_keeps_the_model_where_told(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    perf_model(program, None, out_dir=tmp_path, hbm=tmp_path / "kept.hbm", progressbar=False, layer_details=True)
    told = capsys.readouterr().out
    assert "FPS" in told
    assert "load and store" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.hbm", "kept.html", "kept.json"]


def test_segments_in_one_file_give_the_integers_of_the_whole(program: Program, tmp_path: Path) -> None:
    stages = list(split_program(program, [program.nodes[2].name]).stages.values())
    compile_model(stages, None, tmp_path / "net.hbm", name=["first", "second"], progressbar=False, jobs=2)
    assert list(read_hbm(tmp_path / "net.hbm")) == ["first", "second"]
    x = one_input(program)
    between = simulate(tmp_path / "net.hbm", x, name="first")
    entering = {each.name: between[each.name] for each in stages[1].inputs}
    got = simulate(tmp_path / "net.hbm", entering, name="second")
    for name, value in bpu_kernels.run(program, x).items():
        assert np.array_equal(got[name], value)


@pytest.mark.parametrize("options", [{"input_layout": "BPU_RAW"}, {"opt": "O3"}, {"opt": "balance"}, {"opt": "ddr"}])
def test_layout_and_optimization_change_no_integer(options: dict[str, Any], program: Program, tmp_path: Path) -> None:
    compile_model(program, None, tmp_path / "net.hbm", progressbar=False, jobs=2, **options)
    x = one_input(program)
    got = simulate(tmp_path / "net.hbm", x)
    for name, value in bpu_kernels.run(program, x).items():
        assert np.array_equal(got[name], value)


def test_compiler_that_takes_too_long_is_stopped_and_leaves_no_file(program: Program, tmp_path: Path) -> None:
    with pytest.raises(HbdkError, match=r"was stopped after 0\.01 s"):
        compile_model(program, None, tmp_path / "net.hbm", progressbar=False, limits=Limits(seconds=0.01))
    assert not list(tmp_path.iterdir())


def test_file_of_the_compiler_must_end_in_hbm(program: Program, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"ends in \.hbm"):
        compile_model(program, None, tmp_path / "net.bin", progressbar=False)


def test_folder_of_the_file_is_looked_for_before_compiling(
    program: Program, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist; make it first"):
        compile_model(program, None, tmp_path / "missing" / "net.hbm", progressbar=True)
    assert "building" not in capfd.readouterr().err


def test_hbir_names_inputs_and_outputs_in_order(model: QuantizedGraphModule, tmp_path: Path) -> None:
    assert export_hbir(model, real_inputs(SHAPES, 0), tmp_path / "net.hbir") == (["x"], ["output"])
    assert (tmp_path / "net.hbir").stat().st_size > 0


def test_compile_command_writes_the_file_and_tells_its_size(files: Path, tmp_path: Path) -> None:
    target = tmp_path / "net.hbm"
    result = bpu("compile", files / "net.bpu", "-o", target, "--json", "--no-progress", "-j", 2)
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"file": str(target), "bytes": target.stat().st_size}


def test_progress_goes_to_stderr(files: Path, tmp_path: Path) -> None:
    result = bpu("compile", files / "net.bpu", "-o", tmp_path / "net.hbm", "--json", "-j", 2)
    json.loads(result.stdout)
    assert all(step in result.stderr for step in ("building", "checking", "compiling"))


def test_perf_command_prints_figures_and_layers_as_json(files: Path, tmp_path: Path) -> None:
    result = bpu("perf", files / "net.hbm", "--output", tmp_path, "--json")
    (figures,) = json.loads(result.stdout).values()
    assert figures["fps"] > 0
    assert {"path", "ops", "computing", "load_store", "active", "shape"} == set(figures["layers"][0])


@pytest.mark.parametrize("name", ["net.bpu", "net.hbm"])
def test_simulate_command_writes_the_integers_of_the_program(
    name: str, files: Path, program: Program, tmp_path: Path
) -> None:
    result = bpu("simulate", files / name, "--input", files / "x.npy", "--output", tmp_path, "--json")
    assert result.exit_code == 0
    for output, value in bpu_kernels.run(program, one_input(program)).items():
        assert np.array_equal(np.load(tmp_path / f"{output}.npy"), value)


def test_compare_command_holds_the_compiled_model_to_the_program(files: Path) -> None:
    result = bpu("compare", files / "net.bpu", files / "net.hbm", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["equal"] is True


def test_check_command_asks_the_vendor_too(files: Path) -> None:
    result = bpu("check", files / "net.bpu", "--vendor", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["vendor"] is True


def test_doctor_finds_every_program_of_the_toolkit() -> None:
    findings = json.loads(bpu("doctor", "--json").stdout)
    assert all(each["found"] for each in findings if each["what"].startswith(("hbdk-", "HBIR", "vendor")))

"""Where results go is looked at before any work: these calls get no model at all, and yet tell of the place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bpu_deploy_tools import (
    compile_model,
    export_hbir,
    export_program_to_onnx,
    export_quantized_onnx,
    export_to_onnx,
    perf_model,
    visualize_model,
)
from bpu_deploy_tools.cli import main
from bpu_deploy_tools.hbdk import perf_hbm
from bpu_deploy_tools.profiler import script_profile
from bpu_kernels import ArgumentError
from bpu_qat_nn.profiler import (
    check_deploy_device,
    check_qconfig,
    compare_weights,
    featuremap_similarity,
    profile_featuremap,
)

NO_MODEL: Any = object()
FILES: dict[str, Callable[[Path], object]] = {
    "compile_model": lambda folder: compile_model(NO_MODEL, None, folder / "net.hbm"),
    "perf_model": lambda folder: perf_model(NO_MODEL, None, hbm=folder / "net.hbm"),
    "export_hbir": lambda folder: export_hbir(NO_MODEL, None, folder / "net.hbir"),
    "visualize_model": lambda folder: visualize_model(NO_MODEL, None, save_path=folder / "net.svg"),
}
ONNX_FILES: dict[str, Callable[[Path], object]] = {
    "export_program_to_onnx": lambda folder: export_program_to_onnx(NO_MODEL, folder / "net.onnx"),
    "export_quantized_onnx": lambda folder: export_quantized_onnx(NO_MODEL, None, folder / "net.onnx"),
    "export_to_onnx": lambda folder: export_to_onnx(NO_MODEL, None, folder / "net.onnx"),
}
FOLDERS: dict[str, Callable[[Path], object]] = {
    "perf_model": lambda folder: perf_model(NO_MODEL, None, out_dir=folder),
    "perf_hbm": lambda folder: perf_hbm("missing.hbm", folder),
    "script_profile": lambda folder: script_profile(NO_MODEL, None, str(folder)),
    "featuremap_similarity": lambda folder: featuremap_similarity(NO_MODEL, NO_MODEL, None, out_dir=str(folder)),
    "profile_featuremap": lambda folder: profile_featuremap(NO_MODEL, out_dir=str(folder)),
    "check_qconfig": lambda folder: check_qconfig(NO_MODEL, None, out_dir=str(folder)),
    "compare_weights": lambda folder: compare_weights(NO_MODEL, NO_MODEL, out_dir=str(folder)),
    "check_deploy_device": lambda folder: check_deploy_device(NO_MODEL, out_dir=str(folder)),
}
COMMANDS = {
    "run": ["run", "missing.bpu", "--input", "x.npy"],
    "simulate": ["simulate", "missing.bpu", "--input", "x.npy"],
    "perf": ["perf", "missing.bpu"],
    "split": ["split", "missing.bpu", "--cut", "node"],
}


@pytest.mark.parametrize("name", FILES)
def test_missing_folder_of_a_file_is_told_first(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist; make it first"):
        FILES[name](tmp_path / "missing")


@pytest.mark.parametrize("name", ONNX_FILES)
def test_missing_folder_of_an_onnx_file_is_told_first(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    with pytest.raises(FileNotFoundError, match="does not exist; make it first"):
        ONNX_FILES[name](tmp_path / "missing")


@pytest.mark.parametrize("name", FOLDERS)
def test_file_in_the_place_of_a_folder_is_told_first(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError, match="file is a file; give the name of a folder"):
        FOLDERS[name](tmp_path / "file")


@pytest.mark.parametrize("name", COMMANDS)
def test_command_tells_of_its_output_first(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main([*COMMANDS[name], "--output", str(tmp_path / "file")]) == 2
    assert "file is a file; give the name of a folder" in capsys.readouterr().err

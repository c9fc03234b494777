"""Every subset of the benchmarks runs, at sizes that say nothing about speed, and the page can be written from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[1] / "benchmarks" / "bench.py"
SUBSETS = ("qat", "calibration", "quantized", "growth")
TINY = ("--rounds", "1", "--batch", "2", "--size", "32", "--width", "0.125", "--networks")


def bench(folder: Path, *arguments: str) -> tuple[list[dict[str, Any]], str]:
    """Return the results and the page."""
    results, page = folder / "results.jsonl", folder / "page.md"
    command = [sys.executable, str(BENCH), *arguments, "--results", str(results), "--page", str(page)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return [json.loads(line) for line in results.read_text().splitlines()], page.read_text()


@pytest.mark.slow
def test_subsets_run_and_are_shown(tmp_path: Path) -> None:
    lines, page = bench(tmp_path, *SUBSETS, *TINY, "resnet18")
    assert {line["subset"] for line in lines} == set(SUBSETS)
    for line in lines:
        assert all(isinstance(line[name], float) and line[name] > 0 for name in ("our_value", "their_value"))
        assert f"| {line['ours']} | {line['theirs']} |" in page


@pytest.mark.slow
@pytest.mark.skipif(find_spec("onnxruntime") is None, reason="onnxruntime is not installed")
def test_engine_runs_beside_its_competitors(tmp_path: Path) -> None:
    _, page = bench(tmp_path, "engine", *TINY, "mobilenet_v2")
    assert "| bpu-kernels | onnxruntime u8s8 |" in page


def test_peer_that_cannot_run_is_told(tmp_path: Path) -> None:
    told = {
        "subset": "peers",
        "setting": {"told": "not measured: no such package"},
        "ours": "X",
        "theirs": "float step",
    }
    (tmp_path / "results.jsonl").write_text(json.dumps({**told, "unit": "ms", "machine": "", "load": 0.0}) + "\n")
    _, page = bench(tmp_path, "--only-page")
    assert "- X: not measured: no such package" in page

"""The recorded integers of the vendor's simulator: all are reproduced, and nothing that runs there is refused here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bpu_kernels import BACKENDS, TensorSpec, golden, load, march_row, quant_dtype
from bpu_kernels.check import infer
from bpu_kernels.engine import native_available
from bpu_kernels.fields import map_arrays, stored_array

GOLDEN = Path(__file__).parent / "golden"
MARCHES = ["bernoulli2", "bayes", "bayes-e"]

RECORDED = {"bernoulli2": (125, 162412), "bayes": (263, 333150), "bayes-e": (263, 333150)}
"""Cases and values by march, from the README of the data; nets have one outcome per output, so more outcomes."""

STRICTER: dict[str, str] = {}
"""Problems that our limits have with recorded cases -> why we are deliberately stricter; there are none."""


def cases(march: str) -> Iterator[tuple[str, dict[str, object], dict[str, np.ndarray]]]:
    for path in sorted((GOLDEN / march).glob("*.npz")):
        with np.load(path, allow_pickle=False) as stored:
            for key in sorted({name.split("/")[0] for name in stored.files}):
                arrays = {name.split("/")[1]: stored[name] for name in stored.files if name.split("/")[0] == key}
                yield f"{path.stem} {key}", json.loads(str(arrays.pop("params"))), arrays


@pytest.mark.parametrize("march", MARCHES)
def test_every_recorded_integer_is_reproduced(march: str) -> None:
    outcomes = list(golden.check_directory(GOLDEN / march))
    assert [outcome for outcome in outcomes if outcome.differing] == []
    nets = [outcome for outcome in outcomes if "/net " in outcome.name]
    assert len(outcomes) - len(nets) + 2 == RECORDED[march][0]
    assert sum(outcome.values for outcome in outcomes) == RECORDED[march][1]


RECORDED_PROGRAMS = {"mobilenet": 10, "unet": 2048, "squeeze_excite": 10, "efficientnet_lite0_stem": 2880}
"""Name of the file -> integers of its outputs, which the simulator gave."""


@pytest.mark.parametrize("backend", sorted(BACKENDS) if native_available() else ["auto", "numpy"])
@pytest.mark.parametrize("name", RECORDED_PROGRAMS)
@pytest.mark.parametrize("march", MARCHES)
def test_recorded_program_gives_the_integers_of_the_simulator(march: str, name: str, backend: str) -> None:
    program = load(GOLDEN / march / "nets" / f"{name}.bpu")
    assert program.self_test is not None
    assert sum(value.size for value in program.self_test.outputs.values()) == RECORDED_PROGRAMS[name]
    program.check_self_test(backend)


@pytest.mark.parametrize("march", MARCHES)
def test_what_the_simulator_runs_is_not_refused(march: str) -> None:
    row = march_row(march)
    found: dict[str, list[str]] = {}
    for name, params, arrays in cases(march):
        if params["op"] != "nv12":
            kernel = golden.KERNEL_OF[str(params["op"])](params, arrays)
            inputs = [arrays[key] for key in params["inputs"]]  # type: ignore[attr-defined]
            specs = [TensorSpec(value.shape, quant_dtype(value.dtype)) for value in inputs]
            problems = [problem for problem in kernel.problems(row, *specs) if problem not in STRICTER]
            assert kernel.name not in row.refused_kernels
            if problems:
                found[name] = problems
    assert found == {}


@pytest.mark.parametrize("march", MARCHES)
def test_stored_forms_of_the_kernels_give_the_same_integers(march: str) -> None:
    """A Program stores parameters in 32 bits; the operators must not need more."""
    row = march_row(march)
    for name, params, arrays in cases(march):
        if params["op"] != "nv12":
            kernel = map_arrays(golden.KERNEL_OF[str(params["op"])](params, arrays), stored_array)
            inputs = [arrays[key] for key in params["inputs"]]  # type: ignore[attr-defined]
            infer(kernel, *(TensorSpec(value.shape, quant_dtype(value.dtype)) for value in inputs))
            assert np.array_equal(kernel.run(row, *inputs), arrays["out"]), name


NOT_EXPRESSIBLE = {
    "conv with enable_rounding (bernoulli2)": "rounding is a fact of the march here, not a parameter",
    "int8 to int16 average pooling": "average pooling has no output type here; it is int8",
}
"""Configurations that our kernels cannot even describe -> why."""

CONTENT = {"bias outside int16 (bernoulli2)": ("b", 32768)}
"""What the data's tensors held where that is the point; the file records shapes and types only."""


REFUSED = [entry for entry in json.loads((GOLDEN / "refused.json").read_text()) if entry["why"] not in NOT_EXPRESSIBLE]


@pytest.mark.parametrize("entry", REFUSED, ids=[f"{entry['march']}: {entry['why']}" for entry in REFUSED])
def test_what_the_vendor_s_tools_refuse_is_refused(entry: dict[str, object]) -> None:
    why, params, tensors = str(entry["why"]), entry["params"], entry["tensors"]
    assert isinstance(params, dict)
    assert isinstance(tensors, dict)
    row = march_row(str(entry["march"]))
    arrays = {name: np.zeros(shape, dtype) for name, (dtype, shape) in tensors.items()}
    if why in CONTENT:
        arrays[CONTENT[why][0]][:] = CONTENT[why][1]
    kernel = golden.KERNEL_OF[params["op"]](params, arrays)
    specs = [TensorSpec(arrays[name].shape, quant_dtype(arrays[name].dtype)) for name in params["inputs"]]
    kernel.infer(*specs)
    assert kernel.name in row.refused_kernels or kernel.problems(row, *specs)


def test_difference_is_found_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(GOLDEN / "bayes" / "relu.npz") as stored:
        arrays = dict(stored)
    arrays["case0/out"] = arrays["case0/out"] + np.int8(1)
    np.savez(tmp_path / "relu.npz", **arrays)
    assert golden.main([str(tmp_path)]) == 1
    assert "DIFFERS" in capsys.readouterr().out


def test_folder_without_data_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert golden.main([str(tmp_path)]) == 1
    assert "no golden data" in capsys.readouterr().err

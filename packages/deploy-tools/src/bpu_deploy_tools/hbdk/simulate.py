"""The fourth witness: compile a Program with the vendor's compiler and run it in the vendor's simulator."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bpu_kernels import ArgumentError, Program
from bpu_kernels.kernel import IntArray

from .errors import HbdkError
from .hbir import plan
from .tools import Limits, Toolkit, find_toolkit

__all__ = ["build_hbir", "compile_program", "simulate"]


def build_hbir(program: Program, path: Path, *, toolkit: Toolkit | None = None, limits: Limits | None = None) -> None:
    """Write a Program as HBIR, built in a process of its own.

    Raises:
        HbdkError: the builder broke; the message names the node.
    """
    toolkit, limits = toolkit or find_toolkit(), limits or Limits()
    planned = plan(program)
    with tempfile.TemporaryDirectory() as folder:
        calls, arrays = Path(folder) / "calls.json", Path(folder) / "arrays.npz"
        calls.write_text(json.dumps({"calls": planned.calls, "inputs": planned.inputs, "outputs": planned.outputs}))
        np.savez(arrays, **planned.arrays)  # type: ignore[arg-type]
        worker = Path(__file__).with_name("worker.py").resolve()
        made = Path(folder) / "model.hbir"
        toolkit.run(["python", str(worker), str(calls), str(arrays), str(made)], cwd=Path(folder), limits=limits)
        made.replace(path)


def compile_program(
    program: Program, hbm: Path, *, opt: str = "O2", jobs: int = 2, name: str = "model", toolkit: Toolkit | None = None,
    limits: Limits | None = None,
) -> None:  # fmt: skip
    """Check and compile a Program to an ``.hbm`` file.

    Raises:
        HbdkRefusalError: the checker or the compiler refuses it.
        HbdkError: a program of the toolkit broke or ran into a limit.
    """
    toolkit, limits = toolkit or find_toolkit(), limits or Limits()
    march, sources = str(program.march), ",".join(each.source for each in program.inputs)
    with tempfile.TemporaryDirectory() as folder:
        hbir, made = Path(folder) / "model.hbir", Path(folder) / "model.hbm"
        build_hbir(program, hbir, toolkit=toolkit, limits=limits)
        common = ["-m", str(hbir), "-f", "hbir", "--march", march, "-i", sources]
        toolkit.run(["hbdk-model-check", *common], cwd=Path(folder), limits=limits)
        layouts = ["--input-layout", "NHWC", "--output-layout", "NHWC"]
        options = ["-o", str(made), f"--{opt}", "-n", name, "-j", str(jobs), *layouts]
        toolkit.run(["hbdk-cc", *common, *options], cwd=Path(folder), limits=limits)
        hbm.write_bytes(made.read_bytes())


def simulate(
    program: Program, inputs: Mapping[str, np.ndarray], *, toolkit: Toolkit | None = None, limits: Limits | None = None
) -> dict[str, IntArray]:
    """Return the integers that the vendor's simulator computes.

    Args:
        program: what to run; compiled without optimization.
        inputs: by name; integers as stored for ddr, uint8 NV12 for pyramid inputs.
        toolkit: by default the one that ``find_toolkit`` finds.
        limits: of each program that runs.
    """
    toolkit, limits = toolkit or find_toolkit(), limits or Limits()
    missing = [each.name for each in program.inputs if each.name not in inputs]
    if missing:
        raise ArgumentError(f"no value for the inputs {missing}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compile_program(program, folder / "model.hbm", opt="O0", toolkit=toolkit, limits=limits)
        files, options = [], []
        for index, each in enumerate(program.inputs):
            suffix = "bin" if each.source == "ddr" else "yuv"
            path = folder / f"input{index}.{suffix}"
            np.ascontiguousarray(inputs[each.name]).tofile(path)
            files.append(str(path))
            if each.source != "ddr":
                height, width = each.spec.shape[1:3]
                options = ["--yuv-size", f"{height}x{width}"]
        (folder / "out").mkdir()
        command = ["hbdk-sim", "-f", str(folder / "model.hbm"), "-n", "model", "-i", ",".join(files), *options]
        toolkit.run([*command, "-o", str(folder / "out")], cwd=folder, limits=limits)
        return {
            output.name: _read_output(folder / "out", index, program, output.tensor)
            for index, output in enumerate(program.outputs)
        }


def _read_output(folder: Path, index: int, program: Program, tensor: str) -> IntArray:
    found = sorted(folder.glob(f"hbdk_output{index}_feature_*_elem_int.txt"))
    if not found:
        raise HbdkError(f"the simulator wrote no output {index}; it wrote {sorted(p.name for p in folder.iterdir())}")
    lines = [line for line in found[0].read_text().splitlines() if line and not line.startswith("#")]
    numbers = np.array(" ".join(lines).split(), np.int64)
    spec = program.specs[tensor]
    result: IntArray = numbers.reshape(spec.shape).astype(spec.dtype.numpy)
    return result

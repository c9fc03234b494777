"""``bpu show``, ``bpu run`` and ``bpu compare``: Programs in files, without the vendor's toolkit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import bpu_kernels
from bpu_kernels import ArgumentError, Program, ProgramInput
from bpu_kernels.array_files import describe_output, read_inputs, write_outputs
from bpu_kernels.difference import describe_difference
from bpu_kernels.kernel import IntArray
from bpu_kernels.program_json import program_to_json
from bpu_kernels.whole_file import expect_folder

from ..hbdk import Limits, read_hbm
from ..hbdk import simulate as simulate_model
from .arguments import Backend, Inputs, Json, ProgramFile, Seed

__all__ = ["compare", "print_outputs", "print_written", "random_inputs", "run", "show"]


def show(file: ProgramFile, as_json: Json = False) -> None:
    """Print a Program as a table: operators, shapes, scales, costs."""
    program = bpu_kernels.load(file)
    print(json.dumps(program_to_json(program), indent=2) if as_json else bpu_kernels.show(program))


def run(
    file: ProgramFile,
    inputs: Inputs,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Write each output as DIR/NAME.npy.")] = None,
    keep: Annotated[list[str] | None, typer.Option(metavar="NODE", help="A node whose output to give too.")] = None,
    backend: Backend = "numpy",
    as_json: Json = False,
) -> None:
    """Run a Program on integers and print or write its outputs."""
    expect_folder(output)
    program = bpu_kernels.load(file)
    print_outputs(
        bpu_kernels.run(program, read_inputs(program.inputs, inputs), keep=keep or (), backend=backend), output, as_json
    )


def print_outputs(outputs: dict[str, IntArray], folder: Path | None, as_json: bool) -> None:
    """Print outputs in short, and write them if there is a folder; JSON holds the integers if there is none."""
    paths = {} if folder is None else write_outputs(folder, outputs)
    described = {name: describe_output(value, paths.get(name)) for name, value in outputs.items()}
    if as_json:
        values = {} if paths else {name: {"values": value.tolist()} for name, value in outputs.items()}
        print(json.dumps({name: entry | values.get(name, {}) for name, entry in described.items()}))
        return
    for name, entry in described.items():
        where = f" -> {entry['file']}" if "file" in entry else ""
        print(f"{name}  {entry['dtype']}{entry['shape']} {entry['min']}..{entry['max']}{where}")


def print_written(path: Path, as_json: bool) -> None:
    """Print which file was written, and its size."""
    size = path.stat().st_size
    print(json.dumps({"file": str(path), "bytes": size}) if as_json else f"{path}  {size:,} bytes")


def compare(
    first: Annotated[Path, typer.Argument(help="Program file, or .hbm file, which the vendor's simulator runs.")],
    second: Annotated[Path, typer.Argument(help="The other one.")],
    inputs: Inputs = [],  # noqa: B006 - typer makes a list of it
    seed: Seed = 0,
    backend: Backend = "numpy",
    as_json: Json = False,
) -> None:
    """Run two models on the same integers and say where their outputs differ; exit code 1 if they do."""
    runs = [_runnable(path, backend) for path in (first, second)]
    declared = runs[0][0]
    given = read_inputs(declared, inputs) if inputs else random_inputs(declared, seed)
    results = [run(given) for _, run in runs]
    if set(results[0]) != set(results[1]):
        raise ArgumentError(f"{first} gives {', '.join(results[0])}; {second} gives {', '.join(results[1])}")
    found = {name: describe_difference(results[1][name], value) for name, value in results[0].items()}
    if as_json:
        print(json.dumps({"equal": not any(found.values()), "differences": found}))
    else:
        for name, difference in found.items():
            print(f"{name}  {difference or f'equal, {results[0][name].size} integers'}")
    raise typer.Exit(int(any(found.values())))


def _runnable(path: Path, backend: str) -> tuple[tuple[ProgramInput, ...], Any]:
    """Return the inputs of a file's model, and the function that runs it."""
    if path.suffix == ".hbm":
        models = list(read_hbm(path).values())
        if len(models) != 1:
            raise ArgumentError(f"{path} holds {len(models)} models; compare takes files of one")
        return models[0].inputs, lambda given: simulate_model(path, given, limits=Limits())
    program: Program = bpu_kernels.load(path)
    return program.inputs, lambda given: bpu_kernels.run(program, given, backend=backend)


def random_inputs(declared: tuple[ProgramInput, ...], seed: int) -> dict[str, np.ndarray]:
    """Return evenly distributed integers for every input, NV12 bytes for those of a camera."""
    generator, found = np.random.default_rng(seed), {}
    for each in declared:
        shape, dtype = each.spec.shape, each.spec.dtype
        if each.source == "ddr":
            found[each.name] = generator.integers(dtype.min, dtype.max + 1, shape).astype(dtype.numpy)
        else:
            found[each.name] = generator.integers(0, 256, shape[1] * shape[2] * 3 // 2, np.uint8)
    return found

"""``bpu check``, ``compile``, ``perf``, ``simulate`` and ``doctor``: the vendor's toolkit."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import bpu_kernels
from bpu_kernels.array_files import read_inputs
from bpu_kernels.whole_file import expect_folder

from ..hbdk import Limits, check_model, compile_model, perf_hbm, read_hbm
from ..hbdk import simulate as simulate_model
from ..hbdk.doctor import examine
from ..hbdk.perf import Performance, show_performance
from ..hbdk.simulate import chosen_model
from .arguments import Inputs, Json, MemoryLimit, ProgramFile, TimeLimit
from .files import print_outputs, print_written

__all__ = ["check", "compile", "doctor", "perf", "simulate"]

ProgramFiles = Annotated[list[Path], typer.Argument(help="Program files; several are the segments of one file.")]
Optimization = Annotated[str, typer.Option(help="O0, O1, O2, O3, ddr, fast or balance.")]


def check(
    file: ProgramFile,
    backend: Annotated[str, typer.Option(help="Where the self-test runs.")] = "numpy",
    vendor: Annotated[bool, typer.Option("--vendor", help="Ask the vendor's checker too.")] = False,
    as_json: Json = False,
    seconds: TimeLimit = 1800.0,
    memory: MemoryLimit = 16.0,
) -> None:
    """Check a Program file, run the self-test that it carries, and ask the vendor's checker if wanted."""
    program = bpu_kernels.load(file)
    tested = program.self_test is not None
    if tested:
        program.check_self_test(backend)
    if not as_json:
        test = f"self-test equal on {backend}" if tested else "it carries no self-test"
        print(f"{file}: valid for {program.march}, {len(program.nodes)} nodes; {test}")
    code = 0
    if vendor:
        with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):
            code = check_model(program, None, limits=Limits(seconds=seconds, memory_gib=memory))
    if as_json:
        answer = None if not vendor else code == 0
        print(json.dumps({"march": str(program.march), "self_test": tested, "vendor": answer}))
    raise typer.Exit(code)


def compile(
    files: ProgramFiles,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .hbm file to write.", show_default=False)],
    name: Annotated[list[str] | None, typer.Option(help="Of the model in the file; once per segment.")] = None,
    opt: Optimization = "O2",
    balance_factor: Annotated[int, typer.Option(help="For balance: 0 least traffic, 100 least cycles.")] = 2,
    input_layout: Annotated[str | None, typer.Option(help="NHWC, NCHW or BPU_RAW.")] = None,
    output_layout: Annotated[str, typer.Option(help="NHWC, NCHW or BPU_RAW.")] = "NCHW",
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Threads of the compiler.")] = 16,
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
    as_json: Json = False,
    seconds: TimeLimit = 1800.0,
    memory: MemoryLimit = 16.0,
) -> None:
    """Check Programs and compile them to an .hbm file for the board."""
    given = list(files) if len(files) > 1 else files[0]
    compile_model(
        given,
        None,
        output,
        name=name[0] if name and len(name) == 1 else name,
        input_layout=input_layout,
        output_layout=output_layout,
        opt=opt,
        balance_factor=balance_factor,
        progressbar=progress,
        jobs=jobs,
        limits=Limits(seconds=seconds, memory_gib=memory),
    )
    print_written(output, as_json)


def perf(
    file: Annotated[Path, typer.Argument(help="Program file, or .hbm file.", show_default=False)],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the vendor's reports.")] = Path("."),
    layers: Annotated[bool, typer.Option("--layers", help="Print every layer too.")] = False,
    opt: Optimization = "O3",
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
    as_json: Json = False,
    seconds: TimeLimit = 1800.0,
    memory: MemoryLimit = 16.0,
) -> None:
    """Estimate frames per second, latency and memory traffic on the board."""
    expect_folder(output)
    limits = Limits(seconds=seconds, memory_gib=memory)
    if file.suffix == ".hbm":
        found = list(perf_hbm(file, output, limits=limits).values())
    else:
        with tempfile.TemporaryDirectory() as folder:
            hbm = Path(folder) / f"{file.stem}.hbm"
            compile_model(file, None, hbm, opt=opt, progressbar=progress, limits=limits)
            found = list(perf_hbm(hbm, output, limits=limits).values())
    if as_json:
        print(json.dumps({each.name: _figures(each) for each in found}))
    else:
        show_performance(found, layer_details=layers)


def _figures(each: Performance) -> dict[str, object]:
    names = ("fps", "latency_us", "ops_per_frame", "ddr_bytes_per_frame")
    return {name: getattr(each, name) for name in names} | {"layers": [asdict(layer) for layer in each.layers]}


def simulate(
    file: Annotated[Path, typer.Argument(help="Program file, or .hbm file.", show_default=False)],
    inputs: Inputs,
    name: Annotated[str | None, typer.Option(help="Of the model, in a file of several.")] = None,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Write each output as DIR/NAME.npy.")] = None,
    as_json: Json = False,
    seconds: TimeLimit = 1800.0,
    memory: MemoryLimit = 16.0,
) -> None:
    """Run a model in the vendor's simulator and print or write its outputs."""
    expect_folder(output)
    compiled, limits = file.suffix == ".hbm", Limits(seconds=seconds, memory_gib=memory)
    model = chosen_model(read_hbm(file, limits=limits), name) if compiled else bpu_kernels.load(file)
    given = read_inputs(model.inputs, inputs)
    print_outputs(simulate_model(file, given, name=name, limits=limits), output, as_json)


def doctor(as_json: Json = False) -> None:
    """Say which tools are found, where, in which version, and how to install what is missing."""
    findings = examine()
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings]))
        return
    table = Table("", "what", "where and which", box=SIMPLE, show_header=False)
    for finding in findings:
        table.add_row("[green]✓[/]" if finding.found else "[red]✗[/]", finding.what, finding.detail)
    Console().print(table)

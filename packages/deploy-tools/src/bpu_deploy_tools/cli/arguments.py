"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Backend", "Inputs", "Json", "MemoryLimit", "ProgramFile", "Seed", "TimeLimit"]

ProgramFile = Annotated[Path, typer.Argument(help="Program file", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Inputs = Annotated[
    list[str],
    typer.Option(
        "--input",
        metavar="[NAME=]PATH",
        help="A .npy of integers, or raw bytes: NHWC integers, or NV12 for a camera input; once per input.",
        show_default=False,
    ),
]
Backend = Annotated[str, typer.Option(help="Where the Program runs.")]
Seed = Annotated[int, typer.Option(help="Of random inputs, where none are given.")]
TimeLimit = Annotated[float, typer.Option("--seconds", help="Time that each of the vendor's programs may take.")]
MemoryLimit = Annotated[float, typer.Option("--memory", help="GiB of memory that each of them may take.")]

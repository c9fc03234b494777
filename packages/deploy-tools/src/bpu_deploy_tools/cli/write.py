"""``bpu export`` and ``bpu insert-yuv``: other files made of a Program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import bpu_kernels

from ..errors import OptionError
from ..hbdk import export_hbir
from ..yuv import with_yuv_input
from .arguments import ProgramFile

__all__ = ["export", "insert_yuv"]

Output = Annotated[Path, typer.Option("--output", "-o", help="The file to write.", show_default=False)]


def export(file: ProgramFile, output: Output) -> None:
    """Write a Program as .hbir, the input of the vendor's compiler."""
    writers = {".hbir": lambda: export_hbir(file, None, output)}
    if output.suffix not in writers:
        raise OptionError(f"expected a file ending in {' or '.join(writers)}, got {output}")
    writers[output.suffix]()
    print(f"{output}  {output.stat().st_size:,} bytes")


def insert_yuv(
    file: ProgramFile,
    output: Output,
    name: Annotated[str | None, typer.Option("--input", help="The image among several inputs.")] = None,
    mean: Annotated[list[float], typer.Option(help="That images 0..255 had subtracted; once, or per channel.")] = [  # noqa: B006
        128.0
    ],
    std: Annotated[list[float], typer.Option(help="That they were divided by; once, or per channel.")] = [128.0],  # noqa: B006
    swing: Annotated[str, typer.Option(help="full, which is the BPU's, or studio.")] = "full",
    channel_order: Annotated[str, typer.Option(help="rgb or bgr, of the images in training.")] = "rgb",
    source: Annotated[str, typer.Option(help="pyramid or resizer.")] = "pyramid",
) -> None:
    """Let a Program that was made for RGB images take the camera's NV12."""
    program = with_yuv_input(
        bpu_kernels.load(file),
        mean=mean,
        std=std,
        swing=swing,
        channel_order=channel_order,
        name=name,
        source=source,
    )
    bpu_kernels.save(program, output)
    print(f"{output}  {output.stat().st_size:,} bytes")

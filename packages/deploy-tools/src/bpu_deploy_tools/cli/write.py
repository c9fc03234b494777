"""``bpu export``, ``bpu insert-yuv`` and ``bpu split``: other files made of a Program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

import bpu_kernels
from bpu_kernels.whole_file import expect_folder, expect_place

from ..errors import OptionError
from ..hbdk import export_hbir
from ..onnx import export_program_to_onnx
from ..segments.split_program import split_program
from ..visualize import visualize_model
from ..yuv import with_yuv_input
from .arguments import Json, ProgramFile
from .files import print_written

__all__ = ["export", "insert_yuv", "split"]

Output = Annotated[Path, typer.Option("--output", "-o", help="The file to write.", show_default=False)]


def export(
    file: ProgramFile,
    output: Output,
    form: Annotated[str, typer.Option(help="Of ONNX: integer, bit for bit, or qdq, in real numbers.")] = "integer",
    as_json: Json = False,
) -> None:
    """Write a Program as .onnx, as .hbir (the input of the vendor's compiler), or draw it as .svg."""
    writers: dict[str, Callable[[], object]] = {
        ".hbir": lambda: export_hbir(file, None, output),
        ".onnx": lambda: export_program_to_onnx(file, output, form=form),
        ".svg": lambda: visualize_model(file, None, save_path=output, show=False),
    }
    if output.suffix not in writers:
        raise OptionError(f"expected a file ending in {', '.join(writers)}; got {output}")
    writers[output.suffix]()
    print_written(output, as_json)


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
    as_json: Json = False,
) -> None:
    """Let a Program that was made for RGB images take the camera's NV12."""
    expect_place(output)
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
    print_written(output, as_json)


def split(
    file: ProgramFile,
    cut: Annotated[
        list[str],
        typer.Option(metavar="NODE[,NODE]", help="Nodes behind which to cut; once per cut.", show_default=False),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the stages.")] = Path("."),
    as_json: Json = False,
) -> None:
    """Cut a Program into stages that hand integers to each other: DIR/stage1.bpu, ..., DIR/manifest.json."""
    expect_folder(output)
    stages = split_program(bpu_kernels.load(file), [each.split(",") for each in cut])
    stages.save(output)
    manifest = stages.manifest
    print(manifest.to_json() if as_json else manifest)

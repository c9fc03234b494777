"""``visualize_model``: a Program drawn as SVG, inputs at the top, every node below what it reads."""

from __future__ import annotations

import os
import tempfile
import webbrowser
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from bpu_kernels import Program
from bpu_kernels.show import parameters
from bpu_kernels.whole_file import expect_place, replace_file

from .errors import OptionError
from .sources import program_of

__all__ = ["draw_program", "visualize_model"]

WIDTH, HEIGHT = 230, 46
"""Of a box, in pixels."""
ACROSS, DOWN = 30, 34
"""Between boxes."""
LETTERS = 36
"""So many fit into a box."""

COLORS: Mapping[str, str] = {
    "input": "#d5e8d4",
    "output": "#d5e8d4",
    "conv2d": "#dae8fc",
    "conv3d": "#dae8fc",
    "conv_transpose2d": "#dae8fc",
    "linear": "#dae8fc",
    "matmul": "#dae8fc",
    "lut8": "#ffe6cc",
    "lut16": "#ffe6cc",
}
"""Kind of box -> its colour; others are grey."""


def visualize_model(
    module: Any,
    example_inputs: Any,
    march: object = None,
    save_path: str | os.PathLike[str] | None = None,
    show: bool = True,
) -> None:
    """Draw what runs on the board: every operator with its path in the model, output and parameters of note.

    Args:
        module: a converted model, one that was traced or exported by torch, a Program, or the path of a Program's file.
        example_inputs: real inputs of the model (None for a Program).
        march: None, or the march that the model must be for.
        save_path: where to write the drawing, ending in ``.svg``.
        show: whether to open it in a browser.

    Raises:
        OptionError: another ending.
    """
    if save_path is not None:
        if Path(save_path).suffix != ".svg":
            raise OptionError(f"expected a save_path that ends in .svg, got {save_path}")
        expect_place(save_path)
    drawing = draw_program(program_of(module, example_inputs, march=march)).encode()
    if save_path is not None:
        replace_file(save_path, drawing)
    if show:
        webbrowser.open(_shown(drawing, save_path).as_uri())


def _shown(drawing: bytes, save_path: str | os.PathLike[str] | None) -> Path:
    """Return where a browser finds the drawing: where it was saved, or a folder of its own."""
    if save_path is not None:
        return Path(save_path).resolve()
    path = Path(tempfile.mkdtemp(), "model.svg")
    path.write_bytes(drawing)
    return path


@dataclass(frozen=True, kw_only=True)
class _Box:
    kind: str
    lines: tuple[str, ...]
    hint: str
    reads: tuple[str, ...]


def draw_program(program: Program) -> str:
    """Return the SVG text of a Program."""
    boxes = dict(_boxes(program))
    levels: dict[str, int] = {}
    columns: dict[int, int] = {}
    places: dict[str, tuple[int, int]] = {}
    for name, box in boxes.items():
        level = levels[name] = 1 + max((levels[source] for source in box.reads), default=-1)
        column = columns.get(level, 0)
        columns[level] = column + 1
        places[name] = (ACROSS + column * (WIDTH + ACROSS), DOWN + level * (HEIGHT + DOWN))
    size = (ACROSS + max(columns.values()) * (WIDTH + ACROSS), DOWN + len(columns) * (HEIGHT + DOWN))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" '
        'font-family="sans-serif" font-size="11">',
        f"<title>Program for {escape(str(program.march))}</title>",
    ]
    for name, box in boxes.items():
        parts += [_line(places[source], places[name]) for source in box.reads]
    parts += [_drawn(box, *places[name]) for name, box in boxes.items()]
    return "\n".join([*parts, "</svg>", ""])


def _boxes(program: Program) -> Iterator[tuple[str, _Box]]:
    """Yield inputs, nodes and outputs, each after those that it reads, by names that cannot coincide."""
    for each in program.inputs:
        lines = (f"{each.name} ({each.source})", str(each.spec))
        yield each.name, _Box(kind="input", lines=lines, hint="input", reads=())
    for node in program.nodes:
        title = node.kernel.name
        lines = (f"{title}  {program.specs[node.output]}", node.name)
        hint = f"{node.name}: {title} {parameters(node.kernel)}"
        yield node.output, _Box(kind=title, lines=lines, hint=hint, reads=node.inputs)
    for output in program.outputs:
        lines = (output.name, str(program.specs[output.tensor]))
        yield f"output\n{output.name}", _Box(kind="output", lines=lines, hint="output", reads=(output.tensor,))


def _line(above: tuple[int, int], below: tuple[int, int]) -> str:
    x1, y1, x2, y2 = above[0] + WIDTH // 2, above[1] + HEIGHT, below[0] + WIDTH // 2, below[1]
    bend = (y1 + y2) // 2
    return f'<path d="M{x1} {y1} C{x1} {bend} {x2} {bend} {x2} {y2}" fill="none" stroke="#666"/>'


def _drawn(box: _Box, x: int, y: int) -> str:
    color = COLORS.get(box.kind, "#f5f5f5")
    texts = "".join(
        f'<text x="{x + 8}" y="{y + 18 + 17 * index}">{escape(_short(line))}</text>'
        for index, line in enumerate(box.lines)
    )
    frame = f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{color}" stroke="#666"/>'
    return f"<g><title>{escape(box.hint)}</title>{frame}{texts}</g>"


def _short(line: str) -> str:
    half = LETTERS // 2
    return line if len(line) <= LETTERS else f"{line[:half]}…{line[-half + 1 :]}"

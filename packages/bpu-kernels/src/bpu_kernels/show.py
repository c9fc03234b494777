"""A Program as text for people: a table of its nodes, with inputs, outputs and totals."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from typing import Any

from .dtypes import QuantDType
from .fields import field_types, nested
from .fixed_point import Array
from .kernel import Kernel, TensorSpec
from .program import Program
from .program_graph import Node

__all__ = ["show"]

HEADER = ("operator", "name", "output", "scale", "parameters", "MACs", "bytes")
RIGHT = {"MACs", "bytes"}
"""Columns of numbers."""
ELASTIC = ("parameters", "name")
"""Columns that give way, in this order, where the table is wider than the screen."""
NARROWEST = 8

LAYOUTS = {4: "NHWC", 5: "NDHWC"}
"""Layout of a feature map by its number of axes."""


def show(program: Program, *, width: int | None = None) -> str:
    """Return a table of the Program: operator, name, output, scale, parameters of note, MACs and parameter bytes.

    Args:
        program: what to show.
        width: of the text in characters; of the terminal by default. Names and parameters are shortened to fit.
    """
    columns = width if width is not None else shutil.get_terminal_size((120, 24)).columns
    total = program.cost
    lines = [f"Program for {program.march} ({program.row.boards})"]
    lines += [f"  {key}: {value}" for key, value in sorted(program.metadata.items())]
    lines += ["inputs"]
    lines += [f"  {each.name}  {_tensor(each.spec)}, {_scale(each.scale)}, {each.source}" for each in program.inputs]
    lines += ["outputs"]
    lines += [
        f"  {each.name}  {_tensor(program.specs[tensor])}, {_scale(program.scales[tensor])}, from {tensor}"
        for each in program.outputs
        for tensor in [each.tensor]
    ]
    rows = [_row(program, node) for node in program.nodes]
    lines += ["", *_table([HEADER, *rows], columns)]
    lines += [
        "",
        f"{len(program.nodes)} nodes, {total.macs:,} MACs, {total.parameter_bytes:,} bytes of parameters, "
        f"{total.output_bytes:,} bytes of activations, "
        + ("no self-test" if program.self_test is None else "with self-test"),
    ]
    return "\n".join(lines)


def parameters(kernel: Kernel) -> str:
    """Return the fields of a kernel that differ from their defaults, arrays left out but for a weight's shape."""
    parts: list[str] = []
    defaults = {field.name: field.default for field in dataclasses.fields(kernel)}
    for name, hint in field_types(type(kernel)).items():
        value = getattr(kernel, name)
        if name == "weight":
            parts.append(f"weight {_by(value.shape)}")
        elif hint is not Array and name != "multiplier" and value is not None and value != defaults[name]:
            parts.append(_parameter(name, hint, value))
    return " ".join(parts)


def _parameter(name: str, hint: Any, value: Any) -> str:
    if value is True or nested(hint)[0] is not None:
        return name
    if isinstance(value, QuantDType):
        return str(value)
    if isinstance(value, tuple):
        return f"{name} {_by(value)}"
    return f"no {name}" if value is False else f"{name} {value}"


def _by(lengths: Sequence[int]) -> str:
    return "x".join(map(str, lengths))


def _row(program: Program, node: Node) -> tuple[str, ...]:
    cost = program.costs[node.name]
    return (
        node.kernel.name,
        node.name,
        str(program.specs[node.output]),
        _scale(node.scale),
        parameters(node.kernel),
        f"{cost.macs:,}" if cost.macs else "",
        f"{cost.parameter_bytes:,}" if cost.parameter_bytes else "",
    )


def _tensor(spec: TensorSpec) -> str:
    layout = LAYOUTS.get(len(spec.shape))
    return f"{spec} {layout}" if layout else str(spec)


def _scale(scale: tuple[float, ...]) -> str:
    if len(set(scale)) == 1:
        return f"{scale[0]:.6g}"
    return f"{min(scale):.3g}..{max(scale):.3g} ({len(scale)})"


def _table(rows: Sequence[tuple[str, ...]], width: int) -> list[str]:
    """Return rows as lines with aligned columns, the elastic ones cut in their middle until the lines fit."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    for name in ELASTIC:
        over = sum(widths) + 2 * (len(widths) - 1) - width
        i = HEADER.index(name)
        if over > 0:
            widths[i] = max(min(widths[i], NARROWEST), widths[i] - over)
    return [
        "  ".join(_cell(i, text, size) for i, (text, size) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]


def _cell(column: int, text: str, size: int) -> str:
    if len(text) > size:
        kept = size - 1
        text = f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
    return text.rjust(size) if HEADER[column] in RIGHT else text.ljust(size)

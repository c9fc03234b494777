"""Tables of text: a heading, a rule, and cells in columns; and files of text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ["text_table", "write_text"]


def text_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a line per row, its cells padded to the width of their column."""
    lines = [headings, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([shown[0], "-" * len(shown[0]), *shown[1:]])


def write_text(path: Path, text: object) -> None:
    """Write a text and a line's end to a file, in a folder that is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n", encoding="utf-8")

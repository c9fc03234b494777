"""Pages for a browser: tables and bar charts in one file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from ..text_table import write_text

__all__ = ["Chart", "Section", "Table", "write_page"]


@dataclass(frozen=True)
class Chart:
    """A bar for each name; the value shows when the mouse rests on it."""

    title: str
    names: Sequence[str]
    values: Sequence[float | None]
    """None and what is not finite have no bar."""
    marked: Sequence[bool] = ()
    """Bars in the colour of warnings; none if empty."""
    base: float = 0.0
    """The value from which the bars start."""


@dataclass(frozen=True)
class Table:
    """Cells of text."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: Sequence[bool] = ()
    """Rows in the colour of warnings; none if empty."""


@dataclass(frozen=True)
class Section:
    """A heading with charts and a table; one without any rows or bars is left out."""

    title: str
    charts: Sequence[Chart] = ()
    table: Table | None = None
    text: str = ""
    """Set as it is, before the rest."""


_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 110em; padding: 0 1em; color: #222; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2em .8em; text-align: left; border-bottom: 1px solid #ddd; }
th { position: sticky; top: 0; background: #f4f4f4; }
tr.marked td { background: #fde3e0; }
figure { margin: 1em 0; overflow-x: auto; }
rect { fill: #3b78b8; } rect.marked { fill: #c8412f; } rect:hover { opacity: .6; }
svg text { font-size: 11px; fill: #555; }
pre { overflow-x: auto; }
"""

_HEIGHT = 160
_BAR = 14


def write_page(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Write a page, in a folder that is made where there is none."""
    shown = [
        section for section in sections if section.text or section.charts or (section.table and section.table.rows)
    ]
    links = "".join(f'<li><a href="#s{index}">{escape(each.title)}</a></li>' for index, each in enumerate(shown))
    body = "\n".join(
        f'<h2 id="s{index}">{escape(each.title)}</h2>\n{_section(each)}' for index, each in enumerate(shown)
    )
    page = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n<ul>{links}</ul>\n{body}\n</body>\n</html>"
    )
    write_text(path, page)


def _section(section: Section) -> str:
    parts = [f"<pre>{escape(section.text)}</pre>"] if section.text else []
    parts += [_chart(chart) for chart in section.charts]
    if section.table is not None and section.table.rows:
        parts.append(_table(section.table))
    return "\n".join(parts)


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(each)}</th>" for each in table.headings)
    marked = table.marked or [False] * len(table.rows)
    rows = [
        ('<tr class="marked">' if mark else "<tr>") + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row, mark in zip(table.rows, marked, strict=True)
    ]
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody>\n</table>"


def _chart(chart: Chart) -> str:
    values = [value if value is not None and math.isfinite(value) else None for value in chart.values]
    known = [value for value in values if value is not None]
    low, high = min([chart.base, *known]), max([chart.base, *known])
    unit = _HEIGHT / ((high - low) or 1.0)
    marked = chart.marked or [False] * len(values)
    bars = [
        _bar(index, name, value, mark, (high - max(value, chart.base)) * unit, abs(value - chart.base) * unit)
        for index, (name, value, mark) in enumerate(zip(chart.names, values, marked, strict=True))
        if value is not None
    ]
    width, base = _BAR * max(1, len(values)) + 70, (high - chart.base) * unit
    axis = (
        f'<text x="{width - 64}" y="10">{high:.4g}</text><text x="{width - 64}" y="{_HEIGHT}">{low:.4g}</text>'
        f'<line x1="0" x2="{width - 70}" y1="{base:.1f}" y2="{base:.1f}" stroke="#888"/>'
    )
    return (
        f"<figure><figcaption>{escape(chart.title)}</figcaption>\n"
        f'<svg role="img" width="{width}" height="{_HEIGHT + 4}">{"".join(bars)}{axis}</svg>\n</figure>'
    )


def _bar(index: int, name: str, value: float, marked: bool, top: float, height: float) -> str:
    kind = ' class="marked"' if marked else ""
    return (
        f'<rect{kind} x="{index * _BAR}" y="{top:.1f}" width="{_BAR - 3}" height="{max(height, 1.0):.1f}">'
        f"<title>{escape(name)}: {value:.6g}</title></rect>"
    )

"""PrepareReport: what ``prepare_qat_fx`` quantized and what it left in float, as data and as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bpu_kernels.dtypes import QuantDType

from ..errors import ArgumentError
from ..text_table import text_table

__all__ = ["DISPLAYS", "LeftInFloat", "PrepareReport", "Quantized", "SharedScale"]


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """A module that is quantized."""

    path: str
    what: str
    """Kind of operation, e.g. ``ConvReLU2d``."""
    inputs: tuple[QuantDType | None, ...]
    """Types of the inputs; None for a real one, or where only running tells."""
    output: QuantDType | None
    """Type of the output; None for a real one."""


@dataclass(frozen=True, kw_only=True)
class LeftInFloat:
    """A module with a qconfig that stays in float."""

    path: str
    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path} ({self.what}) stays in float: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class SharedScale:
    """A module without weights that several calls quantize by one scale, the coarsest that any of them needs."""

    path: str
    what: str
    calls: int

    def __str__(self) -> str:
        way_out = "make a module for each call where they differ in range"
        return f"{self.path} ({self.what}) has one scale for {self.calls} calls: {way_out}"


@dataclass(frozen=True, kw_only=True)
class PrepareReport:
    """What ``prepare_qat_fx`` did; prints as text."""

    quantized: tuple[Quantized, ...] = ()
    left: tuple[LeftInFloat, ...] = ()
    shared: tuple[SharedScale, ...] = ()

    def show(self, display: str = "text") -> str:
        """Return the report in a form of the table DISPLAYS: "text", "table" or "markdown".

        Raises:
            ArgumentError: there is no such form; the message lists those that exist.
        """
        if display not in DISPLAYS:
            raise ArgumentError(f"expected one of {list(DISPLAYS)}, got {display!r}")
        return DISPLAYS[display](self)

    def __str__(self) -> str:
        return self.show()

    def _repr_markdown_(self) -> str:  # what notebooks call
        return self.show("markdown")


_HEADINGS = ("module", "operator", "inputs", "output")


def _cells(report: PrepareReport) -> list[tuple[str, str, str, str]]:
    quantized = [(row.path, row.what, ", ".join(map(_name, row.inputs)), _name(row.output)) for row in report.quantized]
    return quantized + [(row.path, row.what, "float", "float") for row in report.left]


def _name(dtype: QuantDType | None) -> str:
    return "float" if dtype is None else str(dtype)


def _text(report: PrepareReport) -> str:
    """Return the exceptions only, a line each."""
    left = "\n".join(map(str, report.left)) or "everything between the QuantStubs and DeQuantStubs is quantized"
    return "\n".join([left, *map(str, report.shared)])


def _table(report: PrepareReport) -> str:
    """Return a line per module, in columns."""
    return text_table(_HEADINGS, _cells(report))


def _markdown(report: PrepareReport) -> str:
    """Return the same as a Markdown table."""
    rows: list[Sequence[str]] = [_HEADINGS, ["---"] * len(_HEADINGS), *_cells(report)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


DISPLAYS: dict[str, Callable[[PrepareReport], str]] = {"text": _text, "table": _table, "markdown": _markdown}
"""Name of a form -> what makes it."""

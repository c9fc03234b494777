"""FusionReport: what was fused, what was not although a user might expect it, and which functions stayed functions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Fused:
    """One fused module."""

    slot: str
    """Path of the fused module."""

    members: tuple[str, ...]
    """Paths of the modules it was made from, the convolution first."""

    pattern: str
    """The operations in order of execution, such as "Conv2d + BatchNorm2d + add + ReLU"."""

    result: str
    """Class of the fused module."""


@dataclass(frozen=True, kw_only=True)
class NotFused:
    """Neighbours that have the shape of a pattern and stayed separate."""

    members: tuple[str, ...]
    """Paths of the modules, the convolution first."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class KeptFunction:
    """A call that could have become a module and stayed a function."""

    node: str
    """Name of the node."""

    function: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class FusionReport:
    """The outcome of `fuse_fx`; print it for a table."""

    fused: tuple[Fused, ...] = ()
    not_fused: tuple[NotFused, ...] = ()
    kept_functions: tuple[KeptFunction, ...] = ()

    def __str__(self) -> str:
        sections = [
            _table(
                "Fused",
                ("module", "class", "pattern", "made from"),
                [(f.slot, f.result, f.pattern, ", ".join(f.members)) for f in self.fused],
            ),
            _table("Not fused", ("modules", "reason"), [(", ".join(n.members), n.reason) for n in self.not_fused]),
            _table(
                "Kept as functions",
                ("node", "function", "reason"),
                [(k.node, k.function, k.reason) for k in self.kept_functions],
            ),
        ]
        return "\n\n".join(section for section in sections if section) or "Nothing to fuse."


def _table(title: str, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [head, tuple("-" * width for width in widths), *rows]
    return f"{title}\n" + "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )

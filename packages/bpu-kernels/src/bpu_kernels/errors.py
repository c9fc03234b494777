"""The errors of this package: one base, and one class per thing that can be wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = [
    "ArgumentError",
    "BpuKernelsError",
    "InvalidProgramError",
    "Problem",
    "SelfTestError",
    "UnknownMarchError",
    "UnsupportedError",
]


@dataclass(frozen=True)
class Problem:
    """What is wrong at one place of a Program; printed as ``place: reason; reason``."""

    place: str
    """Name of the node, input or output."""
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.place}: {'; '.join(self.reasons)}"


class BpuKernelsError(Exception):
    """Base of all errors that this package raises on purpose.

    Args:
        message: one sentence.
        problems: the places it is about, each appended as a line of its own and kept as ``problems``.
    """

    problems: tuple[Problem, ...]

    def __init__(self, message: str, problems: Iterable[Problem] = ()) -> None:
        self.problems = tuple(problems)
        super().__init__("\n  ".join([message, *map(str, self.problems)]))


class UnsupportedError(BpuKernelsError, ValueError):
    """The march cannot do what was asked; the message lists every reason."""


class UnknownMarchError(UnsupportedError, AttributeError):
    """A march that is not supported; the message lists those that are."""


class InvalidProgramError(BpuKernelsError, ValueError):
    """A Program, or the file of one, is not well formed."""


class ArgumentError(BpuKernelsError, ValueError):
    """An argument does not fit: a tensor of another shape, an unknown name, a path that is a folder."""


class SelfTestError(BpuKernelsError, AssertionError):
    """A backend does not give the integers that a Program carries as its self-test."""

"""Context: what a writer of steps needs beside its kernel, and the kinds of steps there are."""

from __future__ import annotations

from dataclasses import dataclass

from ...march import MarchRow
from ..storage import Placed
from ..words import Words

__all__ = ["OPCODES", "Context"]

OPCODES = (
    "gather",
    "convolution",
    "matmul",
    "add",
    "multiply",
    "rescale",
    "relu",
    "table8",
    "table16",
    "window sum",
    "window max",
    "bilinear",
    "constant",
)
"""Kinds of steps in the order of native/src/plan.cpp."""


@dataclass(frozen=True)
class Context:
    """What a writer of steps needs beside its kernel."""

    words: Words
    row: MarchRow
    inputs: tuple[Placed, ...]
    out: Placed

    def begin(self, opcode: str) -> Words:
        """Start a step."""
        self.words.begin(OPCODES.index(opcode))
        return self.words

    @property
    def channels(self) -> int:
        """Length of the output's last axis."""
        return self.out.spec.shape[-1]

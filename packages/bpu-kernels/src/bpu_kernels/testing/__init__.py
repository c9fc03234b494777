"""For tests of backends and operators: exact comparison, integers with extremes, random kernels and Programs."""

from __future__ import annotations

from .cases import CASES, Case, random_case
from .integers import assert_integers_equal, every_integer, random_integers
from .programs import program_of, random_program

__all__ = [
    "CASES",
    "Case",
    "assert_integers_equal",
    "every_integer",
    "program_of",
    "random_case",
    "random_integers",
    "random_program",
]

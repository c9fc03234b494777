"""For tests of backends and operators: exact comparison, integers with extremes, random kernels of every operator."""

from __future__ import annotations

from .cases import CASES, Case, random_case
from .integers import assert_integers_equal, every_integer, random_integers

__all__ = [
    "CASES",
    "Case",
    "assert_integers_equal",
    "every_integer",
    "random_case",
    "random_integers",
]

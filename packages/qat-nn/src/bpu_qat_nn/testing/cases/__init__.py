"""CASES: a small model for every operator and the parameters that matter, with the marches that take it."""

from __future__ import annotations

from ..case import OperatorCase
from .composites import COMPOSITES
from .functions import ELEMENTWISE, TABLES
from .maps import LAYOUT, MAPS
from .selections import SELECTIONS
from .weighted import CONVOLUTIONS, RESIDUALS

__all__ = ["CASES"]

CASES: dict[str, OperatorCase] = {
    **CONVOLUTIONS,
    **RESIDUALS,
    **ELEMENTWISE,
    **TABLES,
    **MAPS,
    **LAYOUT,
    **SELECTIONS,
    **COMPOSITES,
}
"""Name -> case; docs/operators.md and the tests of every form run over all of them."""

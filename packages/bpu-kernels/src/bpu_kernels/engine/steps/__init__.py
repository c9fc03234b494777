"""STEPS: how every operator becomes the words of a step; all that move integers become the same one, a gather.

What the library has no step for is in ``ON_NUMPY``: a plan stops before it, the reference computes it, the plan goes
on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...kernel import Kernel
from ...ops.choose import Gather, TopIndices
from ...ops.elementwise import Extremum
from ...ops.reduce import ArgExtremum, ReduceExtremum
from ...ops.sample import GridSample, RoiAlign
from . import arithmetic, movement, weighted, window
from .context import OPCODES, Context

__all__ = ["ON_NUMPY", "OPCODES", "STEPS", "Context"]

STEPS: dict[type[Kernel], Callable[[Context, Any], None]] = {
    **arithmetic.STEPS,
    **movement.STEPS,
    **weighted.STEPS,
    **window.STEPS,
}
"""Operator -> writer of its steps."""

ON_NUMPY: frozenset[type[Kernel]] = frozenset(
    {ArgExtremum, Extremum, Gather, GridSample, ReduceExtremum, RoiAlign, TopIndices}
)
"""Operators that numpy computes between steps: rare, and small beside the layers around them."""

"""Running on the engine: a plan is kept per Program, and nothing runs before the self-test has passed."""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Mapping
from functools import cache
from weakref import WeakKeyDictionary

from ..kernel import IntArray
from ..program_graph import ProgramGraph, Progress
from .library import load_library
from .plan import Plan
from .self_test import failure
from .settings import isa_wanted

__all__ = ["forget_plans", "native_available", "native_engine", "native_library", "run_native", "why_unavailable"]

_KEPT = 3
"""So many sets of wanted tensors, and instruction sets, have a plan at a time."""

_plans: WeakKeyDictionary[ProgramGraph, dict[tuple[frozenset[str], int], Plan]] = WeakKeyDictionary()


@cache
def _self_test_failure(isa: int) -> str | None:
    library = load_library()
    if isinstance(library, str):
        return library
    return failure(lambda program, wanted: Plan(program, wanted, library, isa))


def why_unavailable() -> str | None:
    """Return one sentence that says why the engine cannot be used here, or None if it can."""
    return _self_test_failure(isa_wanted())


def native_available() -> bool:
    """Whether the engine is installed, and passes its self-test on this machine."""
    return why_unavailable() is None


def native_library() -> ctypes.CDLL | None:
    """Return the library for functions beside plans; None where the engine cannot be used."""
    found = native_engine()
    return None if found is None else found[0]


def native_engine() -> tuple[ctypes.CDLL, int] | None:
    """Return the library and the instruction set to use, a position in ``ISAS``; None where it cannot be used."""
    library, isa = load_library(), isa_wanted()
    return None if isinstance(library, str) or _self_test_failure(isa) is not None else (library, isa)


def forget_plans(program: ProgramGraph) -> None:
    """Drop what was made of a Program, whose arrays may have changed."""
    _plans.pop(program, None)


def run_native(
    program: ProgramGraph, inputs: Mapping[str, IntArray], wanted: Collection[str], progress: Progress | None
) -> dict[str, IntArray]:
    """Run on the engine; it must be available.

    The latest plans are kept as long as the Program. After a change to an array of a kernel ``Program.validate`` drops
    them.
    """
    library, isa = load_library(), isa_wanted()
    assert not isinstance(library, str)
    plans = _plans.setdefault(program, {})
    key = (frozenset(wanted), isa)
    if key not in plans:
        plans[key] = Plan(program, sorted(wanted), library, isa)
        for oldest in list(plans)[:-_KEPT]:  # each holds a copy of all parameters
            del plans[oldest]
    return plans[key].run(program.nodes, inputs, progress)

"""What can be set about the engine: number of threads, instruction set, and another library for its developers."""

from __future__ import annotations

import os

from ..errors import ArgumentError

__all__ = ["ISAS", "engine_threads", "isa_wanted", "library_wanted", "set_engine_threads"]

ISAS = ("portable", "avx2", "avx512")
"""Instruction sets that kernels are written for, least to most; AVX-512 means with VNNI."""

_threads: int | None = None


def set_engine_threads(count: int | None) -> None:
    """Set how many threads a run uses; None returns to the default.

    Raises:
        ArgumentError: a count below 1.
    """
    global _threads
    if count is not None and count < 1:
        raise ArgumentError(f"expected at least one thread, got {count}")
    _threads = count


def engine_threads() -> int:
    """Return how many threads a run uses: as set, else BPU_ENGINE_THREADS, else one per core of this process."""
    if _threads is not None:
        return _threads
    named = os.environ.get("BPU_ENGINE_THREADS", "")
    if named:
        if not named.isdigit() or int(named) < 1:
            raise ArgumentError(f"BPU_ENGINE_THREADS must be a number of at least 1, not {named!r}")
        return int(named)
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def isa_wanted() -> int:
    """Return the position in ``ISAS`` up to which kernels may go: BPU_ENGINE_ISA, or the last."""
    named = os.environ.get("BPU_ENGINE_ISA", ISAS[-1])
    if named not in ISAS:
        raise ArgumentError(f"BPU_ENGINE_ISA must be one of {', '.join(ISAS)}, not {named!r}")
    return ISAS.index(named)


def library_wanted() -> str | None:
    """Return the path of a library to load in place of the installed one: BPU_ENGINE_LIBRARY."""
    return os.environ.get("BPU_ENGINE_LIBRARY") or None

"""How a benchmark measures: competitors take turns within one process, and their times are compared round by round."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any

__all__ = ["Comparison", "Run", "compare", "take_turns"]

Run = Callable[[], object]
"""Does what is measured, once."""

PAUSE = 0.02
"""Seconds between two runs, after which no thread of the one before spins any more."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One line of the results: what was compared in one setting, and how it came out."""

    subset: str
    setting: Mapping[str, Any]
    ours: str
    theirs: str
    unit: str
    our_value: float
    """Median over the rounds, in the unit."""
    their_value: float
    ratio: float
    """Median over the rounds of ours over theirs."""
    low: float
    """Lower quartile of the ratio."""
    high: float
    """Upper quartile of the ratio."""
    rounds: int

    def as_dict(self) -> dict[str, Any]:
        """Return the line as plain data."""
        return asdict(self)


def take_turns(runs: Mapping[str, Run], rounds: int, *, threads: int = 1, warm_up: int = 2) -> dict[str, list[float]]:
    """Return the seconds of every run in every round; every other round goes backwards.

    One thread is measured in the processor time of the process, which other processes disturb least; several threads
    by the wall's clock.
    """
    clock = time.process_time if threads == 1 else time.perf_counter
    for run in runs.values():
        for _ in range(warm_up):
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(rounds):
        for name in list(runs) if round_ % 2 == 0 else list(runs)[::-1]:
            time.sleep(PAUSE)
            begin = clock()
            runs[name]()
            times[name].append(clock() - begin)
    return times


def compare(
    subset: str,
    setting: Mapping[str, Any],
    ours: tuple[str, list[float]],
    theirs: tuple[str, list[float]],
    unit: str = "ms",
) -> Comparison:
    """Return one line; values in "ms" are given in seconds, others in their unit."""
    factor = 1e3 if unit == "ms" else 1.0
    ratios = [our / their for our, their in zip(ours[1], theirs[1], strict=True)]
    low, _, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return Comparison(
        subset=subset,
        setting=setting,
        ours=ours[0],
        theirs=theirs[0],
        unit=unit,
        our_value=median(ours[1]) * factor,
        their_value=median(theirs[1]) * factor,
        ratio=median(ratios),
        low=low,
        high=high,
        rounds=len(ratios),
    )

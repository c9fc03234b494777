"""Growth: how the time of a QAT step and what it saves grow with batch, resolution, width, depth and threads.

Every line sets one of them at twice its value against the value itself, so that a ratio of 2 is linear growth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial

import torch
from measure import Comparison, Run, compare, take_turns
from memory import saved_bytes
from setting import Setting, inputs, training_step
from subjects import float_network, prepared

from bpu_qconfig import FakeQuantState

__all__ = ["compare_sizes"]

GROWS = ("batch", "size", "width", "depth", "threads")


def compare_sizes(setting: Setting, rounds: int, networks: Sequence[str]) -> Iterator[Comparison]:
    """Give the lines of the last network, at half the setting's batch."""
    base = replace(setting, network=networks[-1], batch=max(2, setting.batch // 2))
    for name in GROWS:
        twice = replace(base, **{name: getattr(base, name) * 2})
        yield from _compare(name, twice, base, rounds)


def _compare(grows: str, twice: Setting, base: Setting, rounds: int) -> Iterator[Comparison]:
    labels = (f"twice the {grows}", "once")
    runs: dict[str, Run] = {}
    saved: list[tuple[str, list[float]]] = []
    for label, setting in zip(labels, (twice, base), strict=True):
        model, x = prepared(float_network(setting), FakeQuantState.QAT), inputs(setting)
        saved.append((label, [saved_bytes(model, x) / 2**20]))
        runs[label] = partial(_step_on_threads, training_step(model, x), setting.threads)
    ours, theirs = take_turns(runs, rounds, threads=twice.threads).items()  # more threads count by the wall's clock
    yield compare("growth", asdict(base), ours, theirs)
    yield compare("growth", asdict(base), saved[0], saved[1], unit="MiB")


def _step_on_threads(step: Run, threads: int) -> None:
    torch.set_num_threads(threads)
    step()

"""Measure the native engine against ONNX Runtime and torch, in pairs that alternate within one process.

``python benchmarks/engine.py [--networks resnet50 ...] [--batches 1 8] [--threads 1 2] [--rounds 15]`` prints a table:
the median time of every competitor, and the ratio of our time to its within each round, median and quartiles. One
thread is measured in its own processor time, several by the wall's clock. Beside them stand the machine's limits: how
long the products alone take with every multiplier busy, and how long every tensor and weight takes to and from memory.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from limits import least_seconds, measured
from machine import describe
from models import COMPETITORS, Runner, program
from networks import NETWORKS

SIZE = 224
PAUSE = 0.05
"""Seconds between two runs, after which no thread of the one before spins any more."""


def seconds(run: Runner, clock: Callable[[], float]) -> float:
    """Return how long one run takes."""
    begin = clock()
    run()
    return clock() - begin


def measure(network: str, batch: int, threads: int, rounds: int, names: list[str]) -> dict[str, np.ndarray]:
    """Return the times of all competitors, one entry per round; they take turns."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    runners = {name: COMPETITORS[name](NETWORKS[network](), batch, SIZE, threads) for name in names}
    for run in runners.values():
        run()
        run()
    times: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(rounds):
        order = names if round_ % 2 == 0 else names[::-1]
        for name in order:
            time.sleep(PAUSE)
            times[name].append(seconds(runners[name], clock))
    return {name: np.array(values) for name, values in times.items()}


def rows(network: str, batch: int, threads: int, times: dict[str, np.ndarray]) -> list[str]:
    """Return the lines of one setting: the competitors', and how long the machine must take at least."""
    ours, *others = times
    lines = [f"| {network} | {batch} | {threads} | {ours} | {np.median(times[ours]) * 1e3:.2f} | 1 | |"]
    for name in others:
        ratio = np.percentile(times[ours] / times[name], [50, 25, 75])
        lines.append(
            f"| {network} | {batch} | {threads} | {name} | {np.median(times[name]) * 1e3:.2f} "
            f"| {ratio[0]:.2f} | {ratio[1]:.2f} .. {ratio[2]:.2f} |"
        )
    for name, least in least_seconds(program(NETWORKS[network](), batch, SIZE), threads).items():
        ratio = np.percentile(times[ours] / least, [50, 25, 75])
        lines.append(
            f"| {network} | {batch} | {threads} | {name} | {least * 1e3:.2f} "
            f"| {ratio[0]:.2f} | {ratio[1]:.2f} .. {ratio[2]:.2f} |"
        )
    return lines


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", nargs="+", choices=sorted(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--against", nargs="+", choices=list(COMPETITORS)[1:], default=list(COMPETITORS)[1:])
    given = parser.parse_args()
    print(describe())
    print("one core, 10^9 a second:", ", ".join(f"{name} {value:.1f}" for name, value in measured().items()))
    print("\n| network | batch | threads | | ms | ours / it | quartiles |\n|---|---|---|---|---|---|---|")
    for network in given.networks:
        for batch in given.batches:
            for threads in given.threads:
                times = measure(network, batch, threads, given.rounds, [next(iter(COMPETITORS)), *given.against])
                print("\n".join(rows(network, batch, threads, times)), flush=True)


if __name__ == "__main__":
    main()

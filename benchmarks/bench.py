"""The benchmarks: ``nox -s bench``, or subsets by name: ``nox -s bench -- qat calibration``.

``python benchmarks/bench.py [NAMES] [--results FILE] [--page FILE]`` measures the subsets named, all by default, prints
every line and appends it to the results, one JSON object a line. ``--page docs/benchmarks.md`` writes the page from the
results; with ``--only-page`` nothing is measured.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path

from branching_networks import BRANCHING
from float_networks import NETWORKS
from machine import describe, load
from measure import Comparison
from page import shown, write_page
from setting import Setting

SUBSETS = {
    "qat": "qat:compare_networks",
    "calibration": "calibration:compare_observers",
    "quantized": "quantized:compare_converted",
    "engine": "engine:compare_engine",
    "growth": "growth:compare_sizes",
    "peers": "peers:compare_peers",
}
"""Names of subsets -> module and function; modules import competitors that need not all be installed."""

BRANCHED = ("quantized",)
"""Subsets that measure networks with branches too."""


Measure = Callable[[Setting, int, Sequence[str]], Iterator[Comparison]]
"""Gives the lines of a subset, as they are measured, for a setting, a number of rounds and names of networks."""


def subset_named(name: str) -> Measure:
    """Return what measures a subset."""
    module, function = SUBSETS[name].split(":")
    found: Measure = getattr(import_module(module), function)
    return found


def record(lines: Iterator[Comparison], results: Path) -> None:
    """Print lines and append them to the results, each with the machine and its load."""
    for line in lines:
        with results.open("a") as file:
            file.write(json.dumps(line.as_dict() | {"machine": describe(), "load": load()}) + "\n")
        print(shown(line.as_dict()), flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("subsets", nargs="*", help=f"{', '.join(SUBSETS)}; default: all")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--batch", type=int, default=Setting.batch)
    parser.add_argument("--size", type=int, default=Setting.size, help="pixels of the networks that are trained")
    parser.add_argument("--width", type=float, default=Setting.width, help="factor on their channels")
    parser.add_argument("--networks", nargs="+", choices=[*NETWORKS, *BRANCHING], help="default: those of the subset")
    parser.add_argument("--threads", type=int, default=Setting.threads)
    parser.add_argument("--results", type=Path, default=Path("benchmarks.jsonl"))
    parser.add_argument("--page", type=Path)
    parser.add_argument("--only-page", action="store_true")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.subsets if name not in SUBSETS]
    if unknown:
        parser.error(f"no subset {', '.join(unknown)}; there are {', '.join(SUBSETS)}")
    setting = Setting(batch=given.batch, size=given.size, threads=given.threads, width=given.width)
    for subset in [] if given.only_page else given.subsets or SUBSETS:
        networks = given.networks or [*NETWORKS, *(BRANCHING if subset in BRANCHED else ())]
        record(subset_named(subset)(setting, given.rounds, networks), given.results)
    if given.page:
        write_page(given.results, given.page)


if __name__ == "__main__":
    main()

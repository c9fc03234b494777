"""docs/benchmarks.md, written from lines of results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["shown", "write_page"]

HEAD = """# Benchmarks

<!-- Written by benchmarks/page.py: run `nox -s bench -- --page docs/benchmarks.md` instead of editing this page. -->

Ratios measured side by side: competitors take turns within one process, every round gives a ratio, and shown are the
median of the rounds and, in brackets, the quartiles. Below 1 the left one is quicker, or smaller. One thread is
measured in processor time, several by the wall's clock. Networks have random weights.

    nox -s bench                                            # everything
    nox -s bench -- qat calibration                         # subsets by name
    nox -s bench -- qat --page docs/benchmarks.md           # and write this page from all results so far

Results are kept, one JSON object a line; a later measurement of the same setting replaces an earlier one on this page.
"""

TITLES = {
    "qat": (
        "Training",
        "A step of quantization-aware training over the step of the float model with BatchNorm, and of the float model "
        "with BatchNorm folded into its weights, which is what is trained here; an evaluation in VALIDATION state, "
        "which computes the board's integers; and memory: what is saved for the gradient, and by how much two steps "
        "raise the resident peak of a fresh process.",
    ),
    "calibration": (
        "Calibration",
        "A pass that observes all activations over a plain pass of the float model, by observer of the activations.",
    ),
    "quantized": ("Converted models", "The converted model in torch over its Program on the native engine."),
    "engine": (
        "Integer inference",
        "A Program on the native engine against ONNX Runtime and torch; and against what the machine allows: how long "
        "the products alone take with every multiplier busy, and every tensor and weight to and from memory.",
    ),
    "growth": (
        "Growth",
        "A QAT step of MobileNetV2 when one number is doubled: time, and what is saved for the "
        "gradient. 2 is linear; twice the size is four times the pixels, and the weights of layers grow with the "
        "square of the width.",
    ),
    "peers": ("Peers", "QAT steps of other libraries over the float step of the same model."),
}
"""Heading and introduction of every subset, in the page's order."""

WORDS = ("network", "memory", "batch", "size", "threads")
"""What of a setting is shown."""


def _setting(line: dict[str, Any]) -> list[str]:
    return [str(line["setting"].get(name, "")) for name in WORDS]


def _numbers(line: dict[str, Any]) -> tuple[str, str, str]:
    unit, rounds = line["unit"], line["rounds"]
    spread = f" ({line['low']:.2f} .. {line['high']:.2f})" if rounds > 1 else ""
    return f"{line['our_value']:.1f} {unit}", f"{line['their_value']:.1f} {unit}", f"**{line['ratio']:.2f}**{spread}"


def shown(line: dict[str, Any]) -> str:
    """Return a line of results as text."""
    if "told" in line["setting"]:
        return f"{line['subset']}: {line['ours']}: {line['setting']['told']}"
    ours, theirs, ratio = _numbers(line)
    where = " ".join(filter(None, _setting(line)))
    return f"{line['subset']}: {where}: {line['ours']} {ours} / {line['theirs']} {theirs} = {ratio.replace('*', '')}"


def _table(lines: list[dict[str, Any]]) -> list[str]:
    rows = [f"| {' | '.join(WORDS)} | what | over | ratio | | |", "|---" * (len(WORDS) + 5) + "|"]
    for line in lines:
        ours, theirs, ratio = _numbers(line)
        rows.append(f"| {' | '.join([*_setting(line), line['ours'], line['theirs'], ratio, ours, theirs])} |")
    return rows


def _machines(lines: list[dict[str, Any]]) -> list[str]:
    """Return what the lines were measured on, and what else it had to do."""
    found = []
    for machine in dict.fromkeys(line["machine"] for line in lines):
        loads = [line["load"] for line in lines if line["machine"] == machine]
        found.append(f"Measured on {machine}; load average of the whole machine {min(loads)} to {max(loads)}.")
    return found


def _latest(results: Path) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for text in results.read_text().splitlines():
        line = json.loads(text)
        found[json.dumps([line[name] for name in ("subset", "setting", "ours", "theirs", "unit")])] = line
    return list(found.values())


def write_page(results: Path, page: Path) -> None:
    """Write the page from a file of results."""
    lines, text = _latest(results), [HEAD]
    for subset, (title, introduction) in TITLES.items():
        here = [line for line in lines if line["subset"] == subset]
        if not here:
            continue
        measured = [line for line in here if "told" not in line["setting"]]
        told = [f"- {line['ours']}: {line['setting']['told']}" for line in here if "told" in line["setting"]]
        text += [f"## {title}\n", f"{introduction}\n"]
        text += [*_table(measured), ""] if measured else []
        text += [*told, ""] if told else []
        text += [f"{each}\n" for each in _machines(measured)]
    page.write_text("\n".join(text).rstrip("\n") + "\n")

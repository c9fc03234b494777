"""The zoo: which of today's models prepare, train, convert and lower, and whether all forms agree on every integer.

``python benchmarks/zoo.py`` runs each model in a process of its own, so that a crash or a loop costs one line of the
table; what a results file holds already is not run again. ``--page docs/zoo.md`` writes the page from the results.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torchvision_operators import declare_operators

STAGES = ("build", "prepare", "calibrate", "train", "convert", "lower", "run")
"""What every model goes through, in order; "exact" means that all of it went well and every integer agreed."""


class Stubbed(nn.Module):
    """A model between a QuantStub and DeQuantStubs, as a user of prepare_qat_fx writes it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        from bpu_qat_nn import DeQuantStub, QuantStub

        self.quant, self.model, self.dequant = QuantStub(), model, DeQuantStub()

    def forward(self, x: Tensor) -> Any:
        """Quantize, run the model, dequantize whatever it returns."""
        return tree_map(lambda y: y if y is None else self.dequant(y), self.model(self.quant(x)))


def run_one(name: str, march: str) -> dict[str, Any]:
    """Take one model through all stages; return the line of the results."""
    declare_operators()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    reached: dict[str, Any] = {"name": name, "march": march}
    stages = _stages(name, march)
    for stage in STAGES:
        try:
            found = next(stages)
        except Exception as error:
            return {**reached, "stage": stage, "status": "refused" if _refuses(error) else "failed", **_told(error)}
        reached |= found
    different = reached["different"]
    return {**reached, "stage": "run", "status": "exact" if not different else "different"}


def _stages(name: str, march: str) -> Iterator[dict[str, Any]]:
    """Yield once per stage."""
    from zoo_models import ZOO

    import bpu_kernels
    from bpu_deploy_tools import lower, torch_outputs
    from bpu_qat_nn import convert_fx, prepare_qat_fx
    from bpu_qat_nn.testing import calibrate, train_steps, validate
    from bpu_qconfig import default_qat_8bit_fake_quant_qconfig, march_scope

    model = Stubbed(ZOO[name].make()).eval()
    shape = ZOO[name].shape
    yield {"parameters": sum(p.numel() for p in model.parameters()), "shape": shape}
    with march_scope(march):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        prepared = prepare_qat_fx(model, {"": default_qat_8bit_fake_quant_qconfig}, example_inputs=(x,))
    yield {"nodes": len(prepared.graph.nodes)}
    calibrate(prepared, [shape], batches=2)
    yield {}
    train_steps(prepared, [shape], steps=1)
    yield {}
    with march_scope(march):
        converted = convert_fx(prepared)
    yield {}
    program = lower(converted, (x,))
    yield {"operators": len(program.nodes)}
    validate(prepared)
    with torch.no_grad():
        # From its third call on a converted model is one call of the engine where it can be.
        trained, integers, *again = (
            [y for y in tree_leaves(each(x)) if isinstance(y, Tensor)] for each in (prepared, *[converted] * 3)
        )
    stored = {program.inputs[0].name: x.movedim(1, -1).contiguous().numpy()}
    given = bpu_kernels.quantize_inputs(program, stored)
    pairs = [pair for each in (trained, *again) for pair in zip(integers, each, strict=True)]
    for backend in ("numpy", "native"):
        outputs = torch_outputs(program, bpu_kernels.run(program, given, backend=backend)).values()
        pairs += zip(integers, outputs, strict=True)
    yield {"different": sum(_differing(a, b) for a, b in pairs), "compared": sum(y.numel() for y in integers)}


def _differing(a: Tensor, b: Tensor) -> int:
    return int((a != b).sum()) if a.shape == b.shape else max(a.numel(), b.numel())


def _refuses(error: Exception) -> bool:
    """Whether an error is one of ours that says what is not supported, rather than an accident."""
    return any(base.__module__.startswith("bpu_") for base in type(error).__mro__)


def _told(error: Exception) -> dict[str, Any]:
    """Return what an error says: its kind, the reasons in short, and the whole text."""
    refusals = getattr(error, "refusals", None)
    reasons = [f"{each.what}: {each.reason}" for each in refusals] if refusals else [str(error)]
    return {"error": type(error).__name__, "reasons": list(dict.fromkeys(reasons))[:20], "text": str(error)[:2000]}


def run_all(names: Sequence[str], march: str, results: Path, timeout: float, workers: int, budget: float) -> None:
    """Run the models that the results file lacks, and append a line for each."""
    known = {each["name"] for each in read(results) if each["march"] == march}
    until = time.monotonic() + budget

    def run(name: str) -> None:
        if name in known or time.monotonic() > until:
            return
        line = _in_process(name, march, timeout)
        with results.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(
            f"{line['status']:9} {line['stage']:9} {line['seconds']:5.0f} s  {name}  {_short(line)[:150]}", flush=True
        )

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(run, names))


def _in_process(name: str, march: str, timeout: float) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", name, "--march", march]
    started = time.monotonic()
    line: dict[str, Any] = {"name": name, "march": march, "stage": "", "status": "failed"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
        line |= json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"text": done.stderr[-2000:]}
    except subprocess.TimeoutExpired:
        line |= {"status": "timeout"}
    return {**line, "seconds": round(time.monotonic() - started, 1)}


def read(results: Path) -> list[dict[str, Any]]:
    """Return the lines of a results file, the last of each model and march."""
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    return list({(line["name"], line["march"]): line for line in lines}.values())


def _short(line: dict[str, Any]) -> str:
    reasons = line.get("reasons") or [line.get("text", "")]
    return re.sub(r"\s+", " ", "; ".join(reasons))


def page(lines: Sequence[dict[str, Any]]) -> str:
    """Return the text of docs/zoo.md."""
    rows = sorted(lines, key=lambda line: str(line["name"]))
    order = {stage: index for index, stage in enumerate(STAGES)}

    def passed(stage: str) -> int:
        return sum(
            line["status"] in ("exact", "different") or order.get(line["stage"], 0) > order[stage] for line in rows
        )

    counts: list[tuple[str, int]] = [(stage, passed(stage)) for stage in STAGES]
    counts.append(("every integer equal", sum(line["status"] == "exact" for line in rows)))

    def share(n: int) -> str:
        return f"{n} ({n / max(1, len(rows)):.0%})"

    why = Counter(reason for line in rows for reason in {_kind(text) for text in line.get("reasons", ())})
    return "\n".join(
        [
            "# The zoo",
            "",
            "<!-- Written by benchmarks/zoo.py (`nox -s zoo`): run it instead of editing this page. -->",
            "",
            f"{len(rows)} models of torchvision and timm with random weights and small inputs, each between a "
            "QuantStub and DeQuantStubs: calibrated, trained for a step, converted and lowered, on march "
            f'{", ".join(sorted({line["march"] for line in rows}))}. "Every integer equal" compares the model in '
            "VALIDATION state, the converted model, called three times, and its Program on numpy and on the native "
            "engine: all outputs, every element.",
            "",
            "| stage passed | models |",
            "| --- | --- |",
            *(f"| {stage} | {share(count)} |" for stage, count in counts),
            "",
            *(["## What keeps the others", "", "| models | reason |", "| --- | --- |"] if why else []),
            *(f"| {count} | {reason} |" for reason, count in why.most_common(40)),
            *([""] if why else []),
            "## Every model",
            "",
            "| model | input | operators | result | reason |",
            "| --- | --- | --- | --- | --- |",
            *(
                f"| {line['name']} | {'x'.join(map(str, line.get('shape', ())))} | {line.get('operators', '')} | "
                f"{_result(line)} | {_short(line)[:160].replace('|', '/')} |"
                for line in rows
            ),
            "",
        ]
    )


def _result(line: dict[str, Any]) -> str:
    if line["status"] == "exact":
        return "exact"
    if line["status"] == "different":
        return f"{line['different']} of {line['compared']} differ"
    return f"{line['status']} at {line['stage']}"


def _kind(reason: str) -> str:
    """Return a reason without names and numbers, so that equal ones count together."""
    first = reason.strip().splitlines()[0]
    return re.sub(r"\d+", "n", re.sub(r"\S*[._]\S*(?=[ :,])", "…", first))[:140].replace("|", "/")


def main() -> None:
    """Parse arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", help="run this model here and print its line")
    parser.add_argument("--march", default="bayes")
    parser.add_argument("--only", default="", help="regular expression of names")
    parser.add_argument("--results", type=Path, default=Path("zoo.jsonl"))
    parser.add_argument("--timeout", type=float, default=240.0, help="seconds for one model")
    parser.add_argument("--budget", type=float, default=1e9, help="seconds after which no further model is started")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--page", type=Path, help="write this page from the results")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(run_one(given.one, given.march)))
        return
    from zoo_models import ZOO

    names = [name for name in ZOO if re.search(given.only, name)]
    run_all(names, given.march, given.results, given.timeout, given.workers, given.budget)
    if given.page:
        given.page.write_text(page([line for line in read(given.results) if line["march"] == given.march]))


if __name__ == "__main__":
    main()

"""``script_profile``, ``compare_script_models``: a traced model operator by operator, beside its Program or another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor

from bpu_kernels import March
from bpu_kernels.whole_file import expect_folder
from bpu_qat_nn import QuantizedGraphModule, plain_module

from ..errors import SourceError
from ..lowering.captured import Follower, followed, is_captured
from ..segments.run_stage import stored_inputs
from .placed import placed

__all__ = ["compare_script_models", "script_profile"]


def script_profile(
    model: Any,
    example_inputs: Any,
    out_dir: str | None = None,
    march: object = None,
    mark_node_func: Callable[[str], bool] | None = None,
    compare_with_hbdk_parser: bool = True,
) -> dict[str, Tensor]:
    """Return the integers that every operator of a traced model gives, and print whether its Program gives the same.

    Args:
        model: made by ``torch.jit.trace`` or ``torch.export`` of a converted model, or that itself.
        example_inputs: what it takes.
        out_dir: folder for horizon_script_result.pt, the returned dictionary; None writes nothing.
        march: None, or the march that the model must be for.
        mark_node_func: takes the name of an operator, says whether its result is kept; None keeps all.
        compare_with_hbdk_parser: compare with the Program, which is what every exporter reads, on the reference.

    Returns:
        name of the operator, e.g. ``conv2d``, from the second of a kind on ``conv2d(1)``, -> its integers.

    Raises:
        SourceError: the model is none of these, or for another march.
        LoweringError: it computes on real values.
    """
    expect_folder(out_dir)
    follower = _followed(model, example_inputs, march)
    keeps = mark_node_func or (lambda name: True)
    results = {name: value for name, value in follower.results.items() if keeps(name)}
    if compare_with_hbdk_parser:
        program = placed(follower.recorder)
        computed = program.run(stored_inputs(program.program, follower.inputs), "numpy")
        _print({name: _verdict(value, computed.get(name)) for name, value in results.items()})
    if out_dir is not None:
        folder = Path(out_dir)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(results, folder / "horizon_script_result.pt")
    return results


def compare_script_models(model1: Any, model2: Any, example_inputs: Any, march: object = None) -> dict[str, bool]:
    """Print and return whether the operators of two traced models give equal integers, such as those of two releases.

    Args:
        model1: as of ``script_profile``.
        model2: likewise.
        example_inputs: what both take.
        march: None, or the march that both must be for.

    Returns:
        name of the operator -> whether it gives the same in both; False as well where one of them does not have it.
    """
    first, second = (_followed(model, example_inputs, march).results for model in (model1, model2))
    names = list(dict.fromkeys([*first, *second]))
    verdicts = {name: _verdict(first.get(name), second.get(name)) for name in names}
    _print(verdicts)
    return {name: verdict == _EQUAL for name, verdict in verdicts.items()}


_EQUAL = "True"


def _verdict(first: Tensor | None, second: Tensor | None) -> str:
    if first is None or second is None:
        return "only one has it"
    same = first.shape == second.shape and first.dtype == second.dtype and torch.equal(first, second.to(first.device))
    return _EQUAL if same else "False"


def _print(verdicts: dict[str, str]) -> None:
    table = Table("name", "if equal", box=SIMPLE)
    for name, verdict in verdicts.items():
        table.add_row(name, verdict, style="" if verdict == _EQUAL else "red")
    Console(width=120).print(table)


def _followed(model: Any, example_inputs: Any, march: object) -> Follower:
    arguments = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    if isinstance(model, QuantizedGraphModule):
        model = plain_module(model, *arguments)
    if not is_captured(model):
        raise SourceError(f"expected a traced model or what convert_fx returned, got {type(model).__name__}")
    follower, _ = followed(model, arguments)
    found = follower.recorder.row.march
    if march is not None and found != March(str(getattr(march, "value", march))):
        raise SourceError(f"the model is for {found}, not for {march}")
    return follower

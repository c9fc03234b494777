"""Run a Program: integers in, integers out, on a backend of the table BACKENDS."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from typing import Any

import numpy as np

from .engine import native_available, run_native, why_unavailable
from .errors import ArgumentError
from .inputs import prepare_inputs
from .kernel import IntArray
from .program_graph import ProgramGraph, Progress

__all__ = ["BACKENDS", "Backend", "dequantize_outputs", "run"]

Backend = Callable[[ProgramGraph, Mapping[str, IntArray], Collection[str], Progress | None], dict[str, IntArray]]
"""Takes a Program, its inputs as the model sees them, names of tensors and a progress callback; returns the tensors."""


def run(
    program: ProgramGraph,
    inputs: Mapping[str, Any] | np.ndarray,
    *,
    keep: Iterable[str] | bool = (),
    backend: str = "auto",
    progress: Progress | None = None,
) -> dict[str, IntArray]:
    """Run a Program and return its outputs by name.

    Args:
        program: what to run.
        inputs: by input name, or one array where there is one input. From ddr: integers (NHWC) of the declared shape,
            in any integer type whose values fit. From pyramid or resizer: NV12 as uint8 of ``H * W * 3 / 2`` bytes, or
            the centred YUV444 that it stands for, int8 (1, H, W, 3).
        keep: names of nodes whose outputs are returned as well; True for all.
        backend: name in ``BACKENDS``: "numpy", the reference; "native", the engine; "auto", the engine where it is
            available, otherwise the reference. The integers are the same.
        progress: called before each node.

    Raises:
        ArgumentError: an input, a name in ``keep`` or the backend is not what it must be. Nothing ran.
    """
    if backend not in BACKENDS:
        raise ArgumentError(f"unknown backend {backend!r}; this installation has {', '.join(BACKENDS)}")
    made = {node.name: node.output for node in program.nodes}
    names = list(made if keep is True else keep or ())
    unknown = [name for name in names if name not in made]
    if unknown:
        raise ArgumentError(f"keep names {', '.join(map(repr, unknown))}, but no node of this Program is called so")
    wanted = {name: made[name] for name in names} | {each.name: each.tensor for each in program.outputs}
    values = BACKENDS[backend](program, prepare_inputs(program, inputs), set(wanted.values()), progress)
    return {name: values[tensor] for name, tensor in wanted.items()}


def dequantize_outputs(program: ProgramGraph, outputs: Mapping[str, IntArray]) -> dict[str, np.ndarray]:
    """Turn what ``run`` returned, kept nodes included, into real numbers: integer times scale, in float32."""
    tensors = {node.name: node.output for node in program.nodes} | {each.name: each.tensor for each in program.outputs}
    unknown = [name for name in outputs if name not in tensors]
    if unknown:
        raise ArgumentError(f"{', '.join(map(repr, unknown))} is no output or node of this Program")
    return {
        name: value.astype(np.float32) * np.asarray(program.scales[tensors[name]], np.float32)
        for name, value in outputs.items()
    }


def _run_numpy(
    program: ProgramGraph, inputs: Mapping[str, IntArray], wanted: Collection[str], progress: Progress | None
) -> dict[str, IntArray]:
    """Run node by node on the reference operators; a tensor is dropped after the last node that reads it."""
    values: dict[str, IntArray] = dict(inputs)
    readers = Counter(name for node in program.nodes for name in node.inputs)
    readers.update(wanted)
    for position, node in enumerate(program.nodes):
        if progress is not None:
            progress(node, position, len(program.nodes))
        values[node.output] = node.kernel.run(program.row, *(values[name] for name in node.inputs))
        readers.subtract(node.inputs)
        for name in {*node.inputs, node.output}:
            if readers[name] == 0:
                del values[name]
    return {name: values[name] for name in wanted}


def _run_auto(
    program: ProgramGraph, inputs: Mapping[str, IntArray], wanted: Collection[str], progress: Progress | None
) -> dict[str, IntArray]:
    """Run on the engine where it is available, otherwise on the reference."""
    return (run_native if native_available() else _run_numpy)(program, inputs, wanted, progress)


def _run_native(
    program: ProgramGraph, inputs: Mapping[str, IntArray], wanted: Collection[str], progress: Progress | None
) -> dict[str, IntArray]:
    """Run on the engine; without one say so, once, and run on the reference."""
    reason = why_unavailable()
    if reason is None:
        return run_native(program, inputs, wanted, progress)
    _warn_once(reason)
    return _run_numpy(program, inputs, wanted, progress)


@cache
def _warn_once(reason: str) -> None:
    warnings.warn(
        f"the native engine is not available, numpy runs instead (the same integers, slowly): {reason}. Installing "
        "bpu-kernels where a C++17 compiler is found builds it",
        RuntimeWarning,
        stacklevel=5,
    )


BACKENDS: dict[str, Backend] = {"auto": _run_auto, "native": _run_native, "numpy": _run_numpy}
"""Ways to run a Program, all with the same integers."""

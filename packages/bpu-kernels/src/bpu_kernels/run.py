"""Run a Program: integers in, integers out, on a backend of the table BACKENDS."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .engine import native_available, run_native, why_unavailable
from .errors import ArgumentError
from .kernel import IntArray
from .ops.input import nv12_to_yuv444

if TYPE_CHECKING:
    from .program import Node, Program, ProgramInput

__all__ = [
    "BACKENDS",
    "Backend",
    "Progress",
    "dequantize_outputs",
    "prepare_inputs",
    "quantize_inputs",
    "run",
    "stored_inputs",
]

Progress = Callable[["Node", int, int], None]
"""Called before each node with the node, its position from 0, and the number of nodes."""

Backend = Callable[["Program", Mapping[str, IntArray], Collection[str], "Progress | None"], dict[str, IntArray]]
"""Takes a Program, its inputs as the model sees them, names of tensors and a progress callback; returns the tensors."""


def run(
    program: Program,
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


def prepare_inputs(program: Program, inputs: Mapping[str, Any] | np.ndarray) -> dict[str, IntArray]:
    """Return the integers that the model sees of each input, by name; raises ArgumentError as ``run`` does."""
    named = _by_name(program, inputs)
    return {each.name: _prepare(each, np.asarray(named[each.name])) for each in program.inputs}


def stored_inputs(program: Program, inputs: Mapping[str, Any] | np.ndarray) -> dict[str, np.ndarray]:
    """Return inputs as a self-test stores them: NV12 where NV12 was given, otherwise what the model sees."""
    named = {name: np.asarray(value) for name, value in _by_name(program, inputs).items()}
    images = {each.name for each in program.inputs if each.source != "ddr" and named[each.name].dtype == np.uint8}
    return {
        name: np.array(named[name]) if name in images else value
        for name, value in prepare_inputs(program, inputs).items()
    }


def quantize_inputs(program: Program, real: Mapping[str, Any] | np.ndarray) -> dict[str, IntArray]:
    """Turn real inputs (NHWC) into integers: ``x / scale`` in float32, rounded half to even, saturated.

    Raises:
        ArgumentError: an input is missing, has another shape, or is not a number everywhere.
    """
    found: dict[str, IntArray] = {}
    for each in program.inputs:
        value = np.asarray(_by_name(program, real)[each.name], np.float32)
        if value.shape != each.spec.shape or np.isnan(value).any():
            raise ArgumentError(f"input {each.name}: expected real numbers of shape {each.spec.shape}, without NaN")
        steps = np.rint(value / np.asarray(each.scale, np.float32))
        found[each.name] = np.clip(steps, each.spec.dtype.min, each.spec.dtype.max).astype(each.spec.dtype.numpy)
    return found


def dequantize_outputs(program: Program, outputs: Mapping[str, IntArray]) -> dict[str, np.ndarray]:
    """Turn what ``run`` returned, kept nodes included, into real numbers: integer times scale, in float32."""
    tensors = {node.name: node.output for node in program.nodes} | {each.name: each.tensor for each in program.outputs}
    unknown = [name for name in outputs if name not in tensors]
    if unknown:
        raise ArgumentError(f"{', '.join(map(repr, unknown))} is no output or node of this Program")
    return {
        name: value.astype(np.float32) * np.asarray(program.scales[tensors[name]], np.float32)
        for name, value in outputs.items()
    }


def _by_name(program: Program, inputs: Mapping[str, Any] | np.ndarray) -> Mapping[str, Any]:
    names = [each.name for each in program.inputs]
    if not isinstance(inputs, Mapping):
        if len(names) != 1:
            raise ArgumentError(f"this Program has {len(names)} inputs ({', '.join(names)}); give a mapping by name")
        return {names[0]: inputs}
    if set(inputs) != set(names):
        raise ArgumentError(f"expected the inputs {', '.join(names)}, got {', '.join(map(str, inputs)) or 'none'}")
    return inputs


def _prepare(each: ProgramInput, value: np.ndarray) -> IntArray:
    spec = each.spec
    if each.source != "ddr" and value.dtype == np.uint8:
        _, height, width, _ = spec.shape
        if value.size != height * width * 3 // 2:
            raise ArgumentError(
                f"input {each.name} from {each.source}: expected NV12 of {height * width * 3 // 2} bytes for "
                f"{height}x{width}, or centred YUV444 as int8 {spec.shape}; got {value.size} bytes"
            )
        return nv12_to_yuv444(value, height, width)
    if value.dtype.kind not in "iu":
        hint = " (quantize_inputs makes integers of real numbers)" if value.dtype.kind == "f" else ""
        raise ArgumentError(f"input {each.name}: expected {spec}, got {value.dtype}{hint}")
    if value.shape != spec.shape:
        raise ArgumentError(f"input {each.name}: expected the shape {spec.shape}, got {value.shape}")
    if value.dtype != spec.dtype.numpy and (value.min() < spec.dtype.min or value.max() > spec.dtype.max):
        raise ArgumentError(f"input {each.name}: values {value.min()}..{value.max()} leave the range of {spec.dtype}")
    return np.ascontiguousarray(value, spec.dtype.numpy)


def _run_numpy(
    program: Program, inputs: Mapping[str, IntArray], wanted: Collection[str], progress: Progress | None
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
    program: Program, inputs: Mapping[str, IntArray], wanted: Collection[str], progress: Progress | None
) -> dict[str, IntArray]:
    """Run on the engine where it is available, otherwise on the reference."""
    return (run_native if native_available() else _run_numpy)(program, inputs, wanted, progress)


def _run_native(
    program: Program, inputs: Mapping[str, IntArray], wanted: Collection[str], progress: Progress | None
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

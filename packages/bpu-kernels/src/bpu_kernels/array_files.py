"""Arrays in files: inputs of a Program as .npy or raw bytes, and its outputs as .npy, for command lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from .errors import ArgumentError
from .kernel import IntArray
from .program_graph import ProgramInput

__all__ = ["describe_output", "read_inputs", "write_outputs"]


def read_inputs(inputs: Sequence[ProgramInput], given: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the arrays of ``[NAME=]PATH`` texts, one for each input.

    Args:
        inputs: what a Program, or a compiled model, declares.
        given: the name may be left out where there is one input only.

    Raises:
        ArgumentError: an unknown or repeated name, or a file that holds no such array.
    """
    declared = {each.name: each for each in inputs}
    found: dict[str, np.ndarray] = {}
    for text in given:
        before, equals, after = text.partition("=")
        if not equals and len(declared) != 1:
            raise ArgumentError(f"this Program has the inputs {', '.join(declared)}; write --input NAME={text}")
        name, path = (before, after) if equals else (next(iter(declared)), text)
        if name not in declared or name in found:
            raise ArgumentError(f"--input {text}: expected each of {', '.join(declared)} once")
        found[name] = _read_array(Path(path), declared[name])
    return found


def _read_array(path: Path, each: ProgramInput) -> np.ndarray:
    """Read a .npy, or raw bytes: NV12 of a camera input, otherwise little-endian integers in the input's shape."""
    if path.suffix == ".npy":
        try:
            array: np.ndarray = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ArgumentError(f"{path} is no .npy file of numbers: {error}") from error
        return array
    data = path.read_bytes()
    if each.source != "ddr":
        return np.frombuffer(data, np.uint8)
    dtype = each.spec.dtype.numpy.newbyteorder("<")
    if len(data) != dtype.itemsize * int(np.prod(each.spec.shape)):
        raise ArgumentError(f"{path} has {len(data)} bytes, which are not {each.spec}")
    return np.frombuffer(data, dtype).reshape(each.spec.shape)


def write_outputs(folder: Path, outputs: Mapping[str, IntArray]) -> dict[str, Path]:
    """Write outputs; letters of a name that mean something in a path are percent-encoded."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{quote(name, safe=' ')}.npy" for name in outputs}
    for name, value in outputs.items():
        np.save(paths[name], value, allow_pickle=False)
    return paths


def describe_output(value: IntArray, path: Path | None) -> dict[str, Any]:
    """Return type, shape and range of an output, and the file it went to."""
    entry = {"dtype": str(value.dtype), "shape": list(value.shape), "min": int(value.min()), "max": int(value.max())}
    return entry if path is None else entry | {"file": str(path)}

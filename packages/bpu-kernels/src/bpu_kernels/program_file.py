"""Program files: safetensors whose metadata holds one JSON text with format, version, checksum and graph.

Nothing in a file is executed, and nothing it declares is believed: sizes are compared with the bytes that are there,
the checksum with the content, every part with what it must be.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np
import safetensors
import safetensors.numpy

from .errors import InvalidProgramError
from .program import Program
from .program_json import program_from_json, program_tensors, program_to_json
from .whole_file import replace_file

__all__ = ["FORMAT", "VERSION", "load", "loads", "save", "saves"]

FORMAT = "bpu-program"
VERSION = 1

METADATA_KEY = "bpu_program"
MOST_HEADER_BYTES = 2**24
MOST_FILE_BYTES = 2**32
DIGITS = 20
"""Of an integer in the JSON; every integer of a Program has fewer."""

_DTYPES = {"U8": "<u1", "I8": "<i1", "I16": "<i2", "I32": "<i4"}
"""safetensors' names of the types that Programs store."""

_deserialize: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = safetensors.deserialize


def saves(program: Program) -> bytes:
    """Return the content of a Program's file; equal Programs give equal bytes."""
    graph = program_to_json(program)
    tensors = {name: np.ascontiguousarray(value) for name, value in program_tensors(program).items()}
    header = {"format": FORMAT, "version": VERSION, "sha256": _digest(graph, tensors), "program": graph}
    data = safetensors.numpy.save(tensors, metadata={METADATA_KEY: _canonical(header)})
    _check_sizes(data)
    return data


def save(program: Program, path: str | os.PathLike[str]) -> None:
    """Write a Program's file; whoever reads the path sees the old file or the whole new one.

    Raises as ``whole_file.replace_file`` does.
    """
    replace_file(path, saves(program))


def loads(data: bytes) -> Program:
    """Return the Program of a file's content.

    Raises:
        InvalidProgramError: it is no Program file, of another version, truncated, altered, or not well formed.
        UnsupportedError: the Program is well formed, but its march cannot run it.
    """
    header = _header(data)
    tensors = _tensors(data)
    if header.get("format") != FORMAT:
        raise InvalidProgramError(f"expected the format {FORMAT!r}, got {header.get('format')!r}")
    if header.get("version") != VERSION or type(header["version"]) is not int:
        raise InvalidProgramError(
            f"file version {header.get('version')!r}; this release of bpu-kernels reads version {VERSION}"
        )
    if set(header) != {"format", "version", "sha256", "program"}:
        raise InvalidProgramError(f"expected format, version, sha256 and program in the header, got {sorted(header)}")
    try:
        digest = _digest(header["program"], tensors)
    except RecursionError as error:
        raise InvalidProgramError("the header is nested too deeply") from error
    if header["sha256"] != digest:
        raise InvalidProgramError("the content does not match its checksum: the file was altered or damaged")
    return program_from_json(header["program"], tensors)


def load(path: str | os.PathLike[str]) -> Program:
    """Read a Program's file; errors as of ``loads``, each with the path, and OSError where it cannot be read."""
    with open(path, "rb") as file:
        data = file.read(MOST_FILE_BYTES + 1)
    try:
        return loads(data)
    except InvalidProgramError as error:
        raise InvalidProgramError(f"{os.fspath(path)}: {error}") from error


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(graph: object, tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the graph's JSON, then name, type, shape and little-endian bytes of every tensor by name."""
    digest = hashlib.sha256(_canonical(graph).encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(_canonical([name, str(array.dtype), list(array.shape)]).encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), order="C").tobytes())
    return digest.hexdigest()


def _check_sizes(data: bytes) -> int:
    """Return the length of safetensors' header after checking it against the limits and the bytes that are there."""
    length = int.from_bytes(data[:8], "little")
    if len(data) > MOST_FILE_BYTES:
        raise InvalidProgramError(f"the file is larger than {MOST_FILE_BYTES} bytes")
    if len(data) < 8 or length > len(data) - 8:
        raise InvalidProgramError(f"truncated, or no Program file: {len(data)} bytes with a header of {length}")
    if length > MOST_HEADER_BYTES:
        raise InvalidProgramError(f"the header takes {length} bytes (allowed: {MOST_HEADER_BYTES})")
    return length


def _header(data: bytes) -> dict[str, Any]:
    """Return our header, out of safetensors' metadata."""
    outer = _parse(data[8 : 8 + _check_sizes(data)], "the safetensors header")
    metadata = outer.get("__metadata__")
    if not isinstance(metadata, dict) or set(metadata) != {METADATA_KEY} or type(metadata[METADATA_KEY]) is not str:
        raise InvalidProgramError(f"no Program file: the safetensors metadata must hold {METADATA_KEY!r} and no more")
    return _parse(metadata[METADATA_KEY].encode("utf-8", "surrogatepass"), "the header")


def _parse(text: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object, refusing what Python's parser would let pass: repeated keys, NaN, endless integers."""
    try:
        found = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_short, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        raise InvalidProgramError(f"{what} is no JSON that a Program file can hold: {error}") from error
    if not isinstance(found, dict):
        raise InvalidProgramError(f"{what} is no JSON object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidProgramError("a key is given twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise InvalidProgramError(f"{name} is no number")


def _short(text: str) -> int:
    if len(text) > DIGITS:
        raise InvalidProgramError(f"an integer of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise InvalidProgramError(f"{text[:DIGITS]} is too large")
    return value


def _tensors(data: bytes) -> dict[str, np.ndarray]:
    """Return the arrays, read-only; safetensors checks that they cover the bytes exactly, without overlap."""
    try:
        parts = _deserialize(data)
    except safetensors.SafetensorError as error:
        raise InvalidProgramError(f"truncated, or no Program file: {error}") from error
    found: dict[str, np.ndarray] = {}
    for name, part in parts:
        dtype = _DTYPES.get(part["dtype"])
        if dtype is None:
            raise InvalidProgramError(
                f"the tensor {name!r} has type {part['dtype']} (Programs store {', '.join(_DTYPES)})"
            )
        array = np.frombuffer(part["data"], dtype).reshape(part["shape"])
        found[name] = array.astype(array.dtype.newbyteorder("="), copy=False)
        found[name].setflags(write=False)
    return found

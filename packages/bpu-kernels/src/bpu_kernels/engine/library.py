"""The shared library of the engine: found, loaded and described to ctypes once, or the reason why there is none.

Beside it, the two calls that every plan makes.
"""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path

import numpy as np

from ..errors import BpuKernelsError
from .settings import library_wanted
from .words import Words

__all__ = ["VERSION", "create_plan", "load_library", "run_steps"]

VERSION = 4
"""Of the words of a plan; a library of another version is not used."""

MESSAGE_BYTES = 256

FILE_NAMES = ("libbpu_engine.so", "libbpu_engine.dylib", "bpu_engine.dll")

SIGNATURES: dict[str, tuple[type | None, list[type]]] = {
    "bpu_engine_version": (c_int32, []),
    "bpu_engine_isa": (c_int32, []),
    "bpu_plan_create": (c_void_p, [c_void_p, c_int64, c_void_p, c_int64, c_int32, c_char_p, c_int64]),
    "bpu_plan_run": (c_int32, [c_void_p, c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_int32]),
    "bpu_plan_destroy": (None, [c_void_p]),
    "bpu_same_blocks": (c_int32, [c_void_p, c_void_p, c_void_p, c_int64]),
    "bpu_layer_range": (c_int32, [c_void_p, c_void_p, c_void_p, c_int32]),
    "bpu_train_layer": (c_int32, [c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_int32]),
    "bpu_train_rows": (c_int32, [c_void_p, c_int32]),
    "bpu_row_ends": (c_int32, [c_void_p, c_int64, c_int64, c_void_p, c_int32]),
    "bpu_follow_ends": (None, [c_void_p, c_int64, c_void_p]),
    "bpu_observe_rows": (c_int32, [c_void_p, c_int64, c_int64, c_void_p, c_int32]),
    "bpu_scale_too_small": (c_int32, [c_void_p]),
    "bpu_layer_gradient": (c_int32, [c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_int32]),
    "bpu_row_values": (c_int32, [c_void_p, c_int64, c_int64, c_void_p, c_void_p, c_int32]),
    "bpu_histogram": (c_int32, [c_void_p, c_int64, c_int64, c_void_p, c_int64, c_void_p, c_int32]),
    "bpu_mask_rows": (c_int32, [c_void_p, c_void_p, c_int64, c_int64, c_int32]),
}
"""Functions of native/src/engine.h: what they return and take."""


@cache
def load_library() -> ctypes.CDLL | str:
    """Return the library, or one sentence that says why it cannot be used."""
    named = library_wanted()
    folder = Path(__file__).parent / "lib"
    paths = [Path(named)] if named else [folder / name for name in FILE_NAMES]
    path = next((each for each in paths if each.exists()), None)
    if path is None:
        return f"there is no {paths[0].name} in {paths[0].parent}"
    try:
        library = ctypes.CDLL(str(path))
        for name, (returned, taken) in SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = returned, taken
        version = library.bpu_engine_version()
    except (OSError, AttributeError) as error:
        return f"{path} cannot be loaded: {error}"
    return library if version == VERSION else f"{path} has version {version}, this package needs {VERSION}"


def create_plan(library: ctypes.CDLL, words: Words, isa: int) -> int:
    """Return the address of a plan made of words; ``bpu_plan_destroy`` gives it back.

    Raises:
        BpuKernelsError: the library cannot read the words.
    """
    numbers = np.array(words.words, np.int64)
    constants = np.frombuffer(bytes(words.constants) or b"\0", np.uint8)
    message = ctypes.create_string_buffer(MESSAGE_BYTES)
    handle: int | None = library.bpu_plan_create(
        numbers.ctypes.data, numbers.size, constants.ctypes.data, constants.size, isa, message, MESSAGE_BYTES
    )
    if handle is None:
        raise BpuKernelsError(f"the native engine refuses its own plan: {message.value.decode()}")
    return handle


def run_steps(
    library: ctypes.CDLL,
    handle: int,
    workspace: int | None,
    inputs: object,
    outputs: object,
    steps: tuple[int, int],
    threads: int,
) -> None:
    """Run the steps from the first number to before the second; inputs and outputs are ctypes arrays of addresses.

    Raises:
        MemoryError: the library got none.
    """
    if library.bpu_plan_run(handle, workspace, inputs, outputs, *steps, threads):
        raise MemoryError("the native engine ran out of memory")

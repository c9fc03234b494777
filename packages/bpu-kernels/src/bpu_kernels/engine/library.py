"""The shared library of the engine: found, loaded and described to ctypes once, or the reason why there is none."""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path

from .settings import library_wanted

__all__ = ["VERSION", "load_library"]

VERSION = 3
"""Of the words of a plan; a library of another version is not used."""

FILE_NAMES = ("libbpu_engine.so", "libbpu_engine.dylib", "bpu_engine.dll")

SIGNATURES: dict[str, tuple[type | None, list[type]]] = {
    "bpu_engine_version": (c_int32, []),
    "bpu_engine_isa": (c_int32, []),
    "bpu_plan_create": (c_void_p, [c_void_p, c_int64, c_void_p, c_int64, c_int32, c_char_p, c_int64]),
    "bpu_plan_run": (c_int32, [c_void_p, c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_int32]),
    "bpu_plan_destroy": (None, [c_void_p]),
    "bpu_layer_range": (c_int32, [c_void_p, c_void_p, c_void_p, c_int32]),
    "bpu_layer_output": (c_int32, [c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_int32]),
    "bpu_train_layer": (c_int32, [c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_int32]),
    "bpu_train_rows": (c_int32, [c_void_p, c_int32]),
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

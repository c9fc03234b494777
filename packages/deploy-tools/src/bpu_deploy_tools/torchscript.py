"""TorchScript files of converted models: ``torch.jit.trace`` makes them, these functions save, load and move them.

Loading needs the operators ``torch.ops.bpu``, which importing this module registers.
"""

from __future__ import annotations

import io
import warnings
from importlib.metadata import version
from os import PathLike
from typing import IO, Any

import torch

from bpu_kernels.torch_ops import library as _operators  # noqa: F401 - registers torch.ops.bpu

from .errors import SourceError

__all__ = ["load_traced", "save_traced", "to_device"]

File = str | PathLike[str] | IO[bytes]
_VERSION_FILE = "bpu_kernels_version.txt"
"""Name of the extra file that tells which release wrote a model."""


def save_traced(module: torch.jit.ScriptModule, f: File, _extra_files: dict[str, Any] | None = None) -> None:
    """Save a traced model, with the release of bpu-kernels that it was made by.

    Args:
        module: returned by ``torch.jit.trace``.
        f: a path, or a file that is open for writing.
        _extra_files: as of ``torch.jit.save``.

    Raises:
        SourceError: it is no traced model.
    """
    if not isinstance(module, torch.jit.ScriptModule):
        raise SourceError(f"expected what torch.jit.trace returned, got {type(module).__name__}")
    extra = {**(_extra_files or {}), _VERSION_FILE: version("bpu-kernels")}
    torch.jit.save(module, f, _extra_files=extra)  # type: ignore[no-untyped-call]


def load_traced(
    f: File, map_location: Any = None, _extra_files: dict[str, Any] | None = None
) -> torch.jit.ScriptModule:
    """Load a traced model; a warning tells if another release of bpu-kernels wrote it.

    Args:
        f: a path, or a file that is open for reading.
        map_location: device to load to, as of ``torch.jit.load``.
        _extra_files: as of ``torch.jit.load``; filled in.
    """
    extra: dict[str, Any] = {**(_extra_files or {}), _VERSION_FILE: ""}
    module: torch.jit.ScriptModule = torch.jit.load(f, map_location, extra)  # type: ignore[no-untyped-call]
    written = extra.pop(_VERSION_FILE)
    written = written.decode() if isinstance(written, bytes) else written
    if _extra_files is not None:
        _extra_files.update(extra)
    if written and written != version("bpu-kernels"):
        warnings.warn(
            f"the model was saved by bpu-kernels {written}, this is {version('bpu-kernels')}; its integers may differ",
            stacklevel=2,
        )
    return module


def to_device(module: torch.jit.ScriptModule, device: Any) -> torch.jit.ScriptModule:
    """Return a traced model on another device, the constants in its code included, which ``module.to`` leaves.

    Args:
        module: a traced model; it stays where it is.
        device: as torch takes it.
    """
    content = io.BytesIO()
    save_traced(module, content)
    content.seek(0)
    return load_traced(content, device)

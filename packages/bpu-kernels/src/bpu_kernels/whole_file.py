"""Writing files whole: whoever reads a path sees the old content or all of the new one."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from .errors import ArgumentError

__all__ = ["expect_place", "replace_file"]


def expect_place(path: str | os.PathLike[str]) -> None:
    """Raise unless a file can lie at a path: asked before the work whose result shall go there.

    Raises:
        ArgumentError: the path is a folder.
        FileNotFoundError: its folder does not exist.
    """
    target = Path(path)
    if target.is_dir():
        raise ArgumentError(f"{target} is a folder; give the name of a file in it")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"the folder {target.parent} does not exist; make it first")


def replace_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file beside its place and move it there.

    Raises:
        ArgumentError, FileNotFoundError: as of ``expect_place``.
    """
    expect_place(path)
    target = Path(path)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)

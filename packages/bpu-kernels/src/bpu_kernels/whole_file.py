"""Writing files: whether a place can take them, asked before the work; and whole, so that nobody sees half of one."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

from .errors import ArgumentError

__all__ = ["expect_folder", "expect_place", "replace_file"]


def expect_place(path: str | os.PathLike[str]) -> None:
    """Raise unless a file can lie at a path: asked before the work whose result shall go there.

    Raises:
        ArgumentError: the path is a folder.
        FileNotFoundError: its folder does not exist.
        OSError: its folder cannot be written to.
    """
    target = Path(path)
    if target.is_dir():
        raise ArgumentError(f"{target} is a folder; give the name of a file in it")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"the folder {target.parent} does not exist; make it first")
    _expect_writable(target.parent)


def expect_folder(path: str | os.PathLike[str] | None) -> None:
    """Raise unless a folder can take files, or can be made: asked before the work whose results shall go there.

    Args:
        path: of the folder; None where nothing shall be written, which is always well.

    Raises:
        ArgumentError: the path, or what it leads through, is a file.
        OSError: it cannot be written to.
    """
    if path is None:
        return
    folder = Path(path)
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not there.is_dir():
        raise ArgumentError(f"{there} is a file; give the name of a folder")
    _expect_writable(there)


def _expect_writable(folder: Path) -> None:
    """Write a file without a name: permissions alone do not tell of a full disk or a read-only one."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(error.errno, f"no file can be written here ({error.strerror})", str(folder)) from error


def replace_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file beside its place and move it there.

    Raises:
        ArgumentError, OSError: as of ``expect_place``.
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

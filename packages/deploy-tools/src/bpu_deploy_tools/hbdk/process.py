"""Running a program as a child with limits on time and memory, reading what it says while it says it."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Finished", "Limits", "run_limited"]

MOST_KEPT = 2**20
"""Characters of output that are kept: the last ones."""
AFTER_KILL = 10.0
"""Seconds that a killed child gets to be gone."""
_DIES_WITH_PARENT = 1
"""Option of Linux's prctl: the signal that a process gets when the thread that started it ends."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a program of the toolkit may take; it has been seen to take 23 GB for a model of one operator."""

    seconds: float = 1800.0
    memory_gib: float = 16.0


@dataclass(frozen=True, kw_only=True)
class Finished:
    """How a child ended."""

    code: int | None
    """Return code, negative for a signal; None: it was stopped, since its time was over."""
    output: str
    """What it wrote to stdout and stderr."""


def run_limited(
    command: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    limits: Limits,
    on_text: Callable[[str], None] | None = None,
) -> Finished:
    """Run a command in a session of its own, so that children of it end with it, and without core dumps.

    On Linux it ends with this process too, however that ends.

    Args:
        command: program and arguments.
        cwd: its working folder.
        environment: its variables.
        limits: on time, and on the address space.
        on_text: called with each piece of output as it comes, in another thread.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)

    def limit() -> None:
        if prctl is not None:
            prctl(_DIES_WITH_PARENT, signal.SIGKILL)
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]  # a user's own limit may be lower, and cannot be raised
        allowed = min(int(limits.memory_gib * 2**30), sys.maxsize if hard == resource.RLIM_INFINITY else hard)
        resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    child = subprocess.Popen(
        command,
        cwd=cwd,
        env=dict(environment),
        preexec_fn=limit,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    pieces: list[str] = []
    reader = threading.Thread(target=_read, args=(child, pieces, on_text), daemon=True)
    reader.start()
    code: int | None = None
    try:
        code = child.wait(limits.seconds)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait(AFTER_KILL)
        reader.join(AFTER_KILL)
    return Finished(code=code, output="".join(pieces)[-MOST_KEPT:])


def _read(child: subprocess.Popen[bytes], pieces: list[str], on_text: Callable[[str], None] | None) -> None:
    assert child.stdout is not None
    with child.stdout as stream:
        while piece := os.read(stream.fileno(), 2**16):
            text = piece.decode(errors="replace")
            pieces.append(text)
            while sum(map(len, pieces)) > 2 * MOST_KEPT:
                del pieces[0]
            if on_text is not None:
                on_text(text)

"""Finding the vendor's toolkit and running its programs, with limits on time and memory."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .errors import HbdkError, HbdkNotFoundError, HbdkRefusalError

__all__ = ["Limits", "Toolkit", "find_toolkit"]

PROGRAMS = ("hbdk-model-check", "hbdk-cc", "hbdk-sim", "hbdk-perf", "hbdk-pack")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a program of the toolkit may take; it has been seen to take 23 GB for a model of one operator."""

    seconds: float = 1800.0
    memory_gib: float = 16.0


@dataclass(frozen=True, kw_only=True)
class Toolkit:
    """An installed toolkit."""

    programs: Path
    """Folder of the programs."""
    python: str
    """Interpreter in which the builder ``hbdk`` can be imported."""
    python_path: str | None
    """Folder to add to its path, if any."""

    @property
    def version(self) -> str:
        """Version that hbdk-cc reports."""
        found = re.search(
            r"version: (\S+)", self.run(["hbdk-cc", "--version"], cwd=Path.cwd(), limits=Limits(seconds=60))
        )
        return found.group(1) if found else "unknown"

    def run(self, command: Sequence[str], *, cwd: Path, limits: Limits) -> str:
        """Run a program of the toolkit, or its Python, and return what it printed.

        Raises:
            HbdkRefusalError: it ended with 1 or 2, as it does when it names what it refuses.
            HbdkError: it broke, or ran into a limit.
        """
        name, *arguments = command
        program = self.python if name == "python" else str(self.programs / name)
        environment = dict(os.environ)
        if name == "python" and self.python_path is not None:
            environment["PYTHONPATH"] = self.python_path

        def limit() -> None:
            bytes_allowed = int(limits.memory_gib * 2**30)
            resource.setrlimit(resource.RLIMIT_AS, (bytes_allowed, bytes_allowed))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

        try:
            done = subprocess.run(
                [program, *arguments],
                cwd=cwd,
                env=environment,
                preexec_fn=limit,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=limits.seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise HbdkError(
                f"{name} was stopped after {limits.seconds:.0f} s; raise the limit to let it go on"
            ) from error
        if done.returncode == 0:
            return done.stdout
        words = _own_words(done.stdout)
        if done.returncode in (1, 2) and name != "python":
            raise HbdkRefusalError(f"{name} refuses the model:\n{words}")
        if "bad_alloc" in done.stdout:
            words = f"it needs more than {limits.memory_gib:g} GiB of memory\n{words}"
        raise HbdkError(f"{name} broke (return code {done.returncode}):\n{words}")


def _own_words(output: str) -> str:
    """Return the lines worth reading: no stack traces, no progress."""
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    readable = [line for line in lines if "[0x" not in line and "HBDK team" not in line and "%|" not in line]
    return "\n".join(f"  {line}" for line in readable[-12:])


@cache
def find_toolkit() -> Toolkit:
    """Return the installed toolkit: in HBDK_HOME, beside HBDK_PYTHON, in this Python, or on PATH.

    Raises:
        HbdkNotFoundError: it is in none of these places.
    """
    home, python = os.environ.get("HBDK_HOME"), os.environ.get("HBDK_PYTHON", sys.executable)
    if home is not None:
        programs = Path(home) / "hbdk" / "bin"
        if not (programs / "hbdk-cc").exists():
            raise HbdkNotFoundError(f"HBDK_HOME is {home}, but {programs} has no hbdk-cc")
        return Toolkit(programs=programs, python=python, python_path=home)
    package = _package_of(python)
    if package is not None:
        return Toolkit(programs=package / "bin", python=python, python_path=None)
    on_path = shutil.which("hbdk-cc")
    if on_path is not None:
        programs = Path(on_path).resolve().parent
        return Toolkit(programs=programs, python=python, python_path=str(programs.parent.parent))
    raise HbdkNotFoundError("HBDK_HOME is not set, hbdk is not installed for this Python, hbdk-cc is not on PATH")


def _package_of(python: str) -> Path | None:
    """Return the folder of the package hbdk of an interpreter, if it has one with programs."""
    code = "import importlib.util as u; s = u.find_spec('hbdk'); print(s.submodule_search_locations[0] if s else '')"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    folder = Path(done.stdout.strip() or "/nonexistent")
    return folder if (folder / "bin" / "hbdk-cc").exists() else None

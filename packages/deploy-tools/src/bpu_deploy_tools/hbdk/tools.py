"""Finding the vendor's toolkit and running its programs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .errors import HbdkError, HbdkNotFoundError, HbdkRefusalError
from .process import Limits, run_limited

__all__ = ["PROGRAMS", "Toolkit", "find_toolkit"]

PROGRAMS = ("hbdk-model-check", "hbdk-cc", "hbdk-sim", "hbdk-perf", "hbdk-pack", "hbdk-disas")
"""The programs that this package calls."""

OnPercent = Callable[[int], None]


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
        said = self.run(["hbdk-cc", "--version"], cwd=Path.cwd(), limits=Limits(seconds=60))
        found = re.search(r"version: (\S+)", said)
        return found.group(1) if found else "unknown"

    def run(self, command: Sequence[str], *, cwd: Path, limits: Limits, on_percent: OnPercent | None = None) -> str:
        """Run a program of the toolkit, or its Python, and return what it printed.

        Args:
            command: name of the program, or "python", and arguments.
            cwd: its working folder.
            limits: on time and memory.
            on_percent: called with the last percentage that it printed, as it comes.

        Raises:
            HbdkRefusalError: it ended with 1 or 2, as it does when it names what it refuses.
            HbdkError: it broke, or ran into a limit.
        """
        name, *arguments = command
        program = self.python if name == "python" else str(self.programs / name)
        environment = dict(os.environ)
        if name == "python" and self.python_path is not None:
            environment["PYTHONPATH"] = self.python_path

        def watch(text: str) -> None:
            percents = re.findall(r"(\d+)%", text)
            if on_percent is not None and percents:
                on_percent(int(percents[-1]))

        try:
            done = run_limited([program, *arguments], cwd=cwd, environment=environment, limits=limits, on_text=watch)
        except OSError as error:
            raise HbdkError(f"{program} cannot be started: {error}") from error
        if done.code == 0:
            return done.output
        words = _own_words(done.output)
        if done.code is None:
            raise HbdkError(f"{name} was stopped after {limits.seconds:g} s; raise the limit to let it go on\n{words}")
        if done.code in (1, 2) and name != "python":
            raise HbdkRefusalError(f"{name} refuses the model:\n{words}")
        if "bad_alloc" in done.output:
            words = f"it needs more than {limits.memory_gib:g} GiB of memory\n{words}"
        raise HbdkError(f"{name} broke (return code {done.code}):\n{words}")


_NOISE = re.compile(
    r"\[0x|HBDK team|\d+%|^(version|runtime version|cmake_build_type|supported_march|git_\w+|release_type"
    r"|working directory|executable|consumed time)\b|Stack Trace|INFO: launch|^/|^-"
)
"""Lines of no use: stack traces, versions, progress, the repeated command line."""


def _own_words(output: str) -> str:
    lines = [line.strip() for line in re.split(r"[\r\n]", output) if line.strip()]
    calls = [line for line in lines if line.startswith("building ")]  # of the worker: the last one is where it broke
    lines = [line for line in lines if line not in calls[:-1]]
    readable = [line for line in lines if not _NOISE.search(line)] or ["(it said nothing of use)"]
    return "\n".join(f"  {line}" for line in readable[-12:])


@cache
def find_toolkit() -> Toolkit:
    """Return the installed toolkit: in HBDK_HOME, beside HBDK_PYTHON, in this Python, or on PATH.

    Raises:
        HbdkNotFoundError: it is in none of these places.
    """
    home, python = os.environ.get("HBDK_HOME"), os.environ.get("HBDK_PYTHON", sys.executable)
    if Path(python).name != python:  # children run elsewhere; links stay, since a venv is one
        python = str(Path(python).absolute())
    if home is not None:
        programs = Path(home).resolve() / "hbdk" / "bin"
        if not (programs / "hbdk-cc").exists():
            raise HbdkNotFoundError(f"HBDK_HOME is {home}, but {programs} has no hbdk-cc")
        return Toolkit(programs=programs, python=python, python_path=str(Path(home).resolve()))
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
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    except OSError as error:
        raise HbdkNotFoundError(f"HBDK_PYTHON is {python}, which cannot be started: {error}") from error
    folder = Path(done.stdout.strip() or "/nonexistent")
    return folder if (folder / "bin" / "hbdk-cc").exists() else None

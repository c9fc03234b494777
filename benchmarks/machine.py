"""What a measurement was made on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bpu_kernels.engine.library import load_library
from bpu_kernels.engine.settings import ISAS, isa_wanted

__all__ = ["describe", "load"]


def describe() -> str:
    """Return processor, cores, instruction set in use and versions."""
    library = load_library()
    isa = "none" if isinstance(library, str) else ISAS[min(library.bpu_engine_isa(), isa_wanted())]
    packages = ", ".join(f"{name} {_version(name)}" for name in ("bpu-kernels", "onnxruntime", "torch", "numpy"))
    return f"{_processor()}, {os.cpu_count()} cores; kernels {isa}; {packages}"


def load() -> float:
    """Return how many processes were running or waiting on average over the last minute."""
    return round(os.getloadavg()[0], 1)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if not information.exists():
        return platform.processor()
    fields = dict(line.split(":", 1) for line in information.read_text().split("\n\n")[0].splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    return f"{named.get('model name')} (family {named.get('cpu family')}, model {named.get('model')})"

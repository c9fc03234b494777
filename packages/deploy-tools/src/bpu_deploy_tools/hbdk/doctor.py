"""What of the vendor's toolkit and of the optional packages is there, where, in which version; what to do if not."""

from __future__ import annotations

import importlib.metadata
import sys
from dataclasses import dataclass
from pathlib import Path

from .errors import INSTALL, HbdkError
from .process import Limits
from .tools import PROGRAMS, Toolkit, find_toolkit

__all__ = ["Finding", "examine"]

BUILDER_PYTHONS = ((3, 9), (3, 12))
"""The first and the last Python in which the toolkit's HBIR builder was seen to load; the wheel is tagged 3.10."""

PACKAGES = {
    "torch": "runs and converts models",
    "onnx": "ONNX export: pip install 'bpu-deploy-tools[onnx]'",
    "onnxruntime": "runs ONNX exports: pip install onnxruntime",
}
"""Distribution -> what it is for."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked for."""

    what: str
    found: bool
    detail: str
    """Where it is and in which version; or what to do."""


def examine() -> list[Finding]:
    """Look for everything that this package can use; nothing is raised for what is missing."""
    running = ".".join(map(str, sys.version_info[:3]))
    findings = [Finding(what="Python", found=True, detail=f"{running}, {sys.executable}")]
    findings += [_package(name, purpose) for name, purpose in PACKAGES.items()]
    try:
        toolkit = find_toolkit()
    except HbdkError as error:
        return [*findings, Finding(what="vendor's toolkit", found=False, detail=str(error))]
    findings.append(_toolkit(toolkit))
    for program in PROGRAMS:
        path = toolkit.programs / program
        findings.append(Finding(what=program, found=path.is_file(), detail=str(path) if path.is_file() else INSTALL))
    return [*findings, _builder(toolkit)]


def _package(name: str, purpose: str) -> Finding:
    try:
        return Finding(what=name, found=True, detail=importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(what=name, found=False, detail=purpose)


def _toolkit(toolkit: Toolkit) -> Finding:
    try:
        return Finding(what="vendor's toolkit", found=True, detail=f"HBDK {toolkit.version}, {toolkit.programs}")
    except HbdkError as error:
        return Finding(what="vendor's toolkit", found=False, detail=str(error))


def _builder(toolkit: Toolkit) -> Finding:
    code = "import sys, hbdk.hbir_base; print('.'.join(map(str, sys.version_info[:3])))"
    try:
        said = toolkit.run(["python", "-c", code], cwd=Path.cwd(), limits=Limits(seconds=60))
    except HbdkError as error:
        first, last = (".".join(map(str, version)) for version in BUILDER_PYTHONS)
        way_out = f"it loads in Python {first} to {last} with numpy; set HBDK_PYTHON to such an interpreter"
        return Finding(what="HBIR builder", found=False, detail=f"{toolkit.python}: {error}; {way_out}")
    return Finding(what="HBIR builder", found=True, detail=f"Python {said.strip()}, {toolkit.python}")

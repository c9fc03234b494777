"""The vendor's toolkit, driven from outside: HBIR, compiler, simulator. It is optional and installed by the user."""

from __future__ import annotations

from .errors import HbdkError, HbdkNotFoundError, HbdkRefusalError
from .simulate import build_hbir, compile_program, simulate
from .tools import Limits, Toolkit, find_toolkit

__all__ = [
    "HbdkError",
    "HbdkNotFoundError",
    "HbdkRefusalError",
    "Limits",
    "Toolkit",
    "build_hbir",
    "compile_program",
    "find_toolkit",
    "simulate",
]

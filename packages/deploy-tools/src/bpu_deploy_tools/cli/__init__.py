"""The command line ``bpu``: Programs and compiled models in files, shown, run, checked, compiled and compared."""

from __future__ import annotations

from .main import main

__all__ = ["main"]

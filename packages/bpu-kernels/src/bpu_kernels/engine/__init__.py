"""The native engine: whole Programs in one call into C++, with the integers of the reference."""

from __future__ import annotations

from .backend import native_available, run_native, why_unavailable
from .settings import engine_threads, set_engine_threads

__all__ = ["engine_threads", "native_available", "run_native", "set_engine_threads", "why_unavailable"]

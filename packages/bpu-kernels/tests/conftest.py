"""Settings of hypothesis, the same examples in every run and no clock; and fixtures of the engine."""

from __future__ import annotations

import ctypes

import pytest
from hypothesis import settings

from bpu_kernels.engine import native_available, why_unavailable
from bpu_kernels.engine.library import load_library
from bpu_kernels.engine.settings import ISAS

settings.register_profile("bpu-kernels", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("bpu-kernels")


@pytest.fixture
def engine() -> ctypes.CDLL:
    """The library; tests that need it are skipped in a pure installation."""
    if not native_available():
        pytest.skip(f"no native engine: {why_unavailable()}")
    library = load_library()
    assert not isinstance(library, str)
    return library


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest, engine: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> str:
    """An instruction set, in force during the test."""
    name: str = request.param
    if ISAS.index(name) > engine.bpu_engine_isa():
        pytest.skip(f"this processor has no {name}")
    monkeypatch.setenv("BPU_ENGINE_ISA", name)
    return name

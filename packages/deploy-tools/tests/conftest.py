"""Fixtures of all tests: one thread, and a march that a test cannot leave behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from bpu_qconfig import march_scope


@pytest.fixture(autouse=True)
def _isolated() -> Iterator[None]:
    torch.manual_seed(0)
    with march_scope("bayes"):
        yield

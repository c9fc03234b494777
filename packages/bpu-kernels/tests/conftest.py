"""Settings of hypothesis: the same examples in every run, and no clock."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("bpu-kernels", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("bpu-kernels")

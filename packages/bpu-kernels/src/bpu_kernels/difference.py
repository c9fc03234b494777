"""How two arrays of integers differ, in words."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["describe_difference"]

SHOWN = 5
"""Differing positions that a message names."""


def describe_difference(got: Any, expected: Any) -> str:
    """Return how two integer arrays differ in type, shape or value; empty if they are equal.

    Values: how many differ, the largest difference in steps, and the first positions with both values.
    """
    got, expected = np.asarray(got), np.asarray(expected)
    if (got.dtype, got.shape) != (expected.dtype, expected.shape):
        return f"got {got.dtype}{got.shape}, expected {expected.dtype}{expected.shape}"
    positions = np.argwhere(got != expected)
    if not len(positions):
        return ""
    steps = np.abs(got.astype(np.int64) - expected.astype(np.int64))
    places = (tuple(map(int, position)) for position in positions[:SHOWN])
    shown = ", ".join(f"{place}: {got[place]} instead of {expected[place]}" for place in places)
    more = ", ..." if len(positions) > SHOWN else ""
    return f"{len(positions)} of {got.size} integers differ, by at most {steps.max()}; at {shown}{more}"

"""Integers for tests: exact comparison with a message that helps, and data with extremes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..difference import describe_difference
from ..dtypes import quant_dtype
from ..kernel import IntArray

__all__ = ["assert_integers_equal", "every_integer", "random_integers"]


def assert_integers_equal(got: Any, expected: Any, *, what: str = "") -> None:
    """Fail unless both have the same type, shape and integers.

    >>> assert_integers_equal(np.int8([1, 2]), np.int8([1, 4]), what="sum")
    Traceback (most recent call last):
    AssertionError: sum: 1 of 2 integers differ, by at most 2; at (1,): 2 instead of 4
    """
    difference = describe_difference(got, expected)
    if difference:
        raise AssertionError(f"{what}: {difference}" if what else difference)


def every_integer(dtype: object) -> IntArray:
    """Return every value of qint8 or qint16 in ascending order."""
    found = quant_dtype(dtype)
    if found.bits > 16:
        raise ValueError(f"{found} has too many values to list them all; random_integers draws some")
    return np.arange(found.min, found.max + 1).astype(found.numpy)


def random_integers(rng: np.random.Generator, shape: Sequence[int], dtype: object = "qint8") -> IntArray:
    """Return uniform integers of the whole range, about one in eight replaced by an extreme: ends, -1, 0 or 1."""
    found = quant_dtype(dtype)
    value = rng.integers(found.min, found.max, size=tuple(shape), endpoint=True)
    extreme = rng.choice([found.min, found.min + 1, -1, 0, 1, found.max - 1, found.max], size=value.shape)
    result: IntArray = np.where(rng.random(value.shape) < 1 / 8, extreme, value).astype(found.numpy)
    return result

"""The public helpers for tests."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpu_kernels.testing import assert_integers_equal, every_integer, random_integers


def test_equal_integers_pass() -> None:
    assert_integers_equal(np.arange(3, dtype=np.int8), np.arange(3, dtype=np.int8))
    assert_integers_equal(np.zeros((0, 2), np.int16), np.zeros((0, 2), np.int16))


def int8(*values: int) -> np.ndarray:
    return np.array(values, np.int8)


DIFFERENCES = {
    "one value": (int8(1, 2), int8(1, 4), "1 of 2 integers differ, by at most 2; at (1,): 2 instead of 4"),
    "no wrap around": (int8(-128), int8(127), "by at most 255; at (0,): -128 instead of 127"),
    "type": (int8(1), np.array([1], np.int16), "got int8(1,), expected int16(1,)"),
    "shape": (int8(1), int8(1).reshape(1, 1), "got int8(1,), expected int8(1, 1)"),
    "many": (
        np.zeros(9, np.int8),
        np.ones(9, np.int8),
        "9 of 9 integers differ, by at most 1; at (0,): 0 instead of 1",
    ),
}


@pytest.mark.parametrize(("got", "expected", "message"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_message_says_what_differs(got: np.ndarray, expected: np.ndarray, message: str) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_integers_equal(got, expected, what="layer")
    assert str(caught.value).startswith("layer: ")
    assert message in str(caught.value)


def test_message_names_the_first_five_positions() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_integers_equal(np.zeros((3, 3), np.int8), np.ones((3, 3), np.int8))
    assert str(caught.value).count("instead of") == 5
    assert str(caught.value).endswith(", ...")


def test_every_integer_is_every_integer() -> None:
    assert every_integer("qint8").tolist() == list(range(-128, 128))
    assert every_integer("qint16").tolist() == list(range(-32768, 32768))
    with pytest.raises(ValueError, match="too many values"):
        every_integer("qint32")


@pytest.mark.parametrize("dtype", ["qint8", "qint16", "qint32"])
def test_random_integers_cover_the_ends(dtype: str) -> None:
    value = random_integers(np.random.default_rng(0), (4000,), dtype)
    info = np.iinfo(value.dtype)
    assert (value.min(), value.max(), f"q{value.dtype}") == (info.min, info.max, dtype)


@given(st.integers(0, 2**32 - 1))
def test_random_integers_depend_on_the_seed_alone(seed: int) -> None:
    first, second = (random_integers(np.random.default_rng(seed), (3, 4)) for _ in range(2))
    assert_integers_equal(first, second)

"""Lookup tables against the scalar equations, over every input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpu_kernels import InvalidProgramError, TensorSpec, march_row, qint8, qint16
from bpu_kernels.ops.lut import Lut8, Lut16, SegmentLine
from bpu_kernels.testing import assert_integers_equal, every_integer, random_case, random_integers, scalar

seeds = st.integers(0, 2**32 - 1)
BAYES = march_row("bayes")


@given(seeds)
@settings(max_examples=10)
def test_lut8_takes_entry_x_plus_128(seed: int) -> None:
    table = random_integers(np.random.default_rng(seed), (256,))
    got = Lut8(table=table).run(BAYES, every_integer("qint8"))
    assert got.tolist() == [int(table[x + 128]) for x in range(-128, 128)]


def lines_of(kernel: Lut16) -> list[tuple[int, int, int, int, int]]:
    line = kernel.line
    return list(zip(*(map(int, v) for v in (line.k, line.b, line.add_lsh, line.sum_rsh, line.max)), strict=True))


@given(seeds)
@settings(max_examples=5)
def test_lut16_equals_equations_21_to_24_for_every_int16(seed: int) -> None:
    kernel, _ = random_case("lut16", "bayes", np.random.default_rng(seed))
    assert isinstance(kernel, Lut16)
    every, lines, tables = every_integer("qint16"), lines_of(kernel), kernel.tables.tolist()
    expected = [scalar.segment_table(x, lines, tables, rounds=kernel.rounds) for x in every.tolist()]
    assert_integers_equal(kernel.run(BAYES, every), np.array(expected, np.int16))


def table16(**changes: Any) -> Lut16:
    kernel, _ = random_case("lut16", "bayes", np.random.default_rng(0))
    assert isinstance(kernel, Lut16)
    line = replace(kernel.line, **{k: v for k, v in changes.items() if k != "tables"})
    return replace(kernel, line=line, tables=changes.get("tables", kernel.tables))


X = TensorSpec((1, 4), qint16)
EIGHT = np.zeros(8, np.int32)

LIMITS = {
    "k beyond int16": ({"k": EIGHT + 40000}, "k of a line outside int16"),
    "b beyond int16": ({"b": EIGHT - 40000}, "b of a line outside int16"),
    "negative shift": ({"sum_rsh": EIGHT - 1}, "shift of a line outside 0..31"),
    "beyond 32 bits": ({"b": EIGHT + 2000, "add_lsh": EIGHT + 20}, "beyond 32 bits"),
    "max descends": ({"max": -np.arange(8, dtype=np.int32)}, "does not ascend"),
    "steep table": ({"tables": np.tile(np.array([-30000, 30000], np.int16), (6, 32))}, "neighbouring"),
}


@pytest.mark.parametrize(("changes", "message"), LIMITS.values(), ids=LIMITS)
def test_table_that_was_not_measured_is_refused(changes: dict[str, Any], message: str) -> None:
    assert any(message in problem for problem in table16(**changes).problems(BAYES, X))


def test_tables_of_other_sizes_are_refused() -> None:
    with pytest.raises(InvalidProgramError, match="not \\(256,\\)"):
        Lut8(table=np.zeros(255, np.int8)).infer(TensorSpec((1, 4), qint8))
    line = SegmentLine(k=EIGHT, b=EIGHT, add_lsh=EIGHT, sum_rsh=EIGHT[:7], max=EIGHT)
    with pytest.raises(InvalidProgramError, match="6 tables of 64 entries and 8 lines"):
        Lut16(line=line, tables=np.zeros((6, 64), np.int16)).infer(X)


def test_int8_and_int16_have_a_table_each() -> None:
    assert Lut8(table=np.zeros(256, np.int8)).problems(BAYES, X) == ["input type qint16 (allowed: qint8)"]
    assert table16().problems(BAYES, TensorSpec((1, 4), qint8)) == ["input type qint8 (allowed: qint16)"]

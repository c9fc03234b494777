"""The rows of the marches: complete, with sources, and unknown names are refused with the list."""

from __future__ import annotations

import copy
import dataclasses

import pytest

from bpu_kernels import MARCHES, March, MarchRow, UnsupportedError, march_row
from bpu_kernels.march import Limit


def test_every_march_has_a_row() -> None:
    assert {march: row.march for march, row in MARCHES.items()} == {march: march for march in March}


@pytest.mark.parametrize("row", MARCHES.values(), ids=lambda row: str(row.march))
def test_every_limit_has_a_source(row: MarchRow) -> None:
    """D, documented by the toolkit, or M, measured on its simulator."""
    limits = [value for field in dataclasses.fields(row) if isinstance(value := getattr(row, field.name), Limit)]
    assert len(limits) > 20
    assert all(limit.source[0] in "DM" for limit in limits)


def test_the_two_bayes_marches_differ_in_name_alone() -> None:
    bayes, bayes_e = (dataclasses.asdict(march_row(march)) for march in ("bayes", "bayes-e"))
    assert {key for key, value in bayes.items() if value != bayes_e[key]} == {"march", "boards"}


@pytest.mark.parametrize("name", ["nash-e", "BAYES", "", "bernoulli"])
def test_unknown_march_is_refused_with_the_list(name: str) -> None:
    with pytest.raises(UnsupportedError, match="'bernoulli2', 'bayes', 'bayes-e'"):
        march_row(name)


def test_row_is_found_by_name_and_by_member_and_survives_a_copy() -> None:
    row = march_row("bayes-e")
    assert march_row(March.BAYES_E) is row
    assert copy.deepcopy(row) is row
    assert str(row.march) == "bayes-e"


def test_limit_prints_as_people_write_it() -> None:
    assert str(Limit(range(1, 8), "D")) == "1..7"
    assert str(Limit((1, 2, 4), "D")) == "1, 2, 4"
    assert 7 in Limit(range(1, 8), "D")
    assert 3 not in Limit((1, 2, 4), "D")

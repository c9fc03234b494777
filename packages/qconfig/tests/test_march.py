"""The march: set for the process, for a scope, seen from threads and tasks."""

from __future__ import annotations

import asyncio
import threading

import pytest

import bpu_qconfig.march
from bpu_kernels.errors import UnsupportedError
from bpu_qconfig import March, MarchNotSetError, get_march, march_scope, set_march


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpu_qconfig.march, "_process_march", None)


def test_get_march_unset_says_how_to_set_it() -> None:
    with pytest.raises(
        MarchNotSetError, match=r"call set_march\(\.\.\.\) with one of 'bernoulli2', 'bayes', 'bayes-e'"
    ):
        get_march()


@pytest.mark.parametrize("march", list(March))
def test_set_march_takes_member_and_name(march: March) -> None:
    set_march(march)
    assert get_march() is march
    set_march(march.value)
    assert get_march() is march


@pytest.mark.parametrize("name", ["BAYES", "nash-e", "", "bayes_e", None])
def test_set_march_unknown_name_lists_the_known(name: str) -> None:
    with pytest.raises(UnsupportedError, match="'bernoulli2', 'bayes', 'bayes-e'"):
        set_march(name)


def test_set_march_is_seen_in_other_threads() -> None:
    set_march("bayes")
    seen: list[March] = []
    thread = threading.Thread(target=lambda: seen.append(get_march()))
    thread.start()
    thread.join()
    assert seen == [March.BAYES]


def test_scope_restores_the_march_before_it() -> None:
    set_march("bayes")
    with march_scope("bernoulli2") as march:
        assert march is get_march() is March.BERNOULLI2
        with march_scope(March.BAYES_E):
            assert get_march() is March.BAYES_E
        assert get_march() is March.BERNOULLI2
    assert get_march() is March.BAYES


def test_scope_restores_after_an_exception() -> None:
    with pytest.raises(KeyError), march_scope("bayes"):
        raise KeyError
    with pytest.raises(MarchNotSetError):
        get_march()


def test_set_march_inside_a_scope_ends_with_it() -> None:
    set_march("bayes")
    with march_scope("bayes-e"):
        set_march("bernoulli2")
        assert get_march() is March.BERNOULLI2
    assert get_march() is March.BAYES


def test_scopes_of_concurrent_tasks_do_not_mix() -> None:
    async def task(march: March) -> bool:
        with march_scope(march):
            await asyncio.sleep(0)
            return get_march() is march

    async def both() -> list[bool]:
        return list(await asyncio.gather(task(March.BAYES), task(March.BERNOULLI2)))

    assert asyncio.run(both()) == [True, True]

"""Fixtures of all tests: one thread, a march that a test cannot leave behind, the vendor's toolkit where asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from bpu_deploy_tools.hbdk import HbdkNotFoundError, find_toolkit
from bpu_qconfig import march_scope


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--damaged-rounds 34``: try 2,040 damaged files of the vendor's formats, which takes an hour, instead of 60."""
    parser.addoption("--damaged-rounds", type=int, default=1, help="rounds of 60 damaged .hbm and HBIR files each")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each round of damaged files a seed of its own."""
    if "damage_seed" in metafunc.fixturenames:
        metafunc.parametrize("damage_seed", range(metafunc.config.getoption("damaged_rounds")))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what needs the vendor's toolkit, which takes a quarter of an hour, unless ``-m hbdk`` asks for it."""
    wanted = "hbdk" in config.getoption("markexpr")
    for item in items:
        if item.get_closest_marker("hbdk") and not wanted:
            item.add_marker(pytest.mark.skip(reason="needs the vendor's toolkit; -m hbdk runs it"))


@pytest.fixture(autouse=True)
def _toolkit_if_needed(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("hbdk"):
        try:
            find_toolkit()
        except HbdkNotFoundError as error:
            pytest.skip(str(error).splitlines()[0])


@pytest.fixture(autouse=True)
def _isolated() -> Iterator[None]:
    torch.manual_seed(0)
    with march_scope("bayes"):
        yield

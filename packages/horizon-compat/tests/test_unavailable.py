"""Documented names that do not exist: every way of asking for one says so, and what to do instead."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from horizon_plugin_pytorch import HorizonCompatError, NotAvailableError, NotImportableError
from horizon_plugin_pytorch.unavailable import UNAVAILABLE

ENTRIES = [
    pytest.param(module, name, id=f"{module.removeprefix('horizon_plugin_pytorch.')}.{name}")
    for module, names in UNAVAILABLE.items()
    for name in names
]


@pytest.mark.parametrize(("module", "name"), ENTRIES)
def test_attribute_raises_with_the_way_out(module: str, name: str) -> None:
    loaded = import_module(module)

    with pytest.raises(NotAvailableError) as caught:
        getattr(loaded, name)
    assert f"{module}.{name} is documented for the vendor's horizon_plugin_pytorch" in str(caught.value)
    assert str(caught.value).endswith(UNAVAILABLE[module][name])
    assert name not in vars(loaded)


@pytest.mark.parametrize(("module", "name"), ENTRIES)
def test_import_from_raises_with_the_same_text(module: str, name: str) -> None:
    with pytest.raises(NotImportableError, match="documented for the vendor's") as caught:
        exec(f"from {module} import {name}", {})
    assert caught.value.name == module


@pytest.mark.parametrize("module", UNAVAILABLE)
def test_unknown_names_raise_the_usual_errors(module: str) -> None:
    loaded: Any = import_module(module)

    with pytest.raises(AttributeError, match=f"module '{module}' has no attribute 'no_such_name'") as caught:
        _ = loaded.no_such_name
    assert not isinstance(caught.value, HorizonCompatError)
    with pytest.raises(ImportError, match="cannot import name 'no_such_name'"):
        exec(f"from {module} import no_such_name", {})


@pytest.mark.parametrize("module", UNAVAILABLE)
def test_hasattr_and_star_import_work_as_for_any_module(module: str) -> None:
    loaded = import_module(module)

    assert not any(hasattr(loaded, name) for name in UNAVAILABLE[module])
    exec(f"from {module} import *", {})


def test_errors_share_one_base_and_derive_from_builtins() -> None:
    assert issubclass(NotAvailableError, (HorizonCompatError, AttributeError))
    assert issubclass(NotImportableError, HorizonCompatError)
    assert issubclass(NotImportableError, ImportError)

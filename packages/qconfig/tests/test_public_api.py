"""The public surface: every name is there, documented, and of one home; errors share one base."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module

import pytest

import bpu_qconfig
from bpu_qconfig import errors

MODULES = [
    module.name for module in pkgutil.walk_packages(bpu_qconfig.__path__, prefix="bpu_qconfig.") if not module.ispkg
]

FUNCTIONS = [name for name in bpu_qconfig.__all__ if inspect.isroutine(getattr(bpu_qconfig, name))]


def test_all_is_complete_and_without_duplicates() -> None:
    assert len(set(bpu_qconfig.__all__)) == len(bpu_qconfig.__all__)
    assert all(hasattr(bpu_qconfig, name) for name in bpu_qconfig.__all__)


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is_about_and_lists_its_names(module: str) -> None:
    loaded = import_module(module)
    assert loaded.__doc__
    assert all(hasattr(loaded, name) for name in loaded.__all__)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_are_documented(name: str) -> None:
    assert inspect.getdoc(getattr(bpu_qconfig, name))


def test_errors_derive_from_one_base_and_a_builtin() -> None:
    raised = [cls for name in errors.__all__ if issubclass(cls := getattr(errors, name), errors.BpuQConfigError)]
    for cls in raised:
        if cls is not errors.BpuQConfigError:
            assert issubclass(cls, (ValueError, RuntimeError))

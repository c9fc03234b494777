"""Traced models are saved with the release that made them, and told when another one loads them."""

from __future__ import annotations

import io
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bpu_deploy_tools import SourceError, load_traced, save_traced, to_device
from bpu_deploy_tools.torchscript import _VERSION_FILE

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def traced() -> Any:
    return torch.jit.trace(nn.Linear(4, 2), torch.zeros(1, 4))  # type: ignore[no-untyped-call]


def test_model_and_extra_files_come_back(tmp_path: Path) -> None:
    model, x = traced(), torch.randn(3, 4)
    save_traced(model, tmp_path / "model.pt", {"notes.txt": "as trained"})
    extra: dict[str, Any] = {"notes.txt": ""}
    assert torch.equal(load_traced(tmp_path / "model.pt", _extra_files=extra)(x), model(x))
    assert extra == {"notes.txt": b"as trained"}


def test_release_is_saved_and_another_one_is_warned_of() -> None:
    content = io.BytesIO()
    found: dict[str, Any] = {_VERSION_FILE: ""}
    save_traced(traced(), content)
    content.seek(0)
    torch.jit.load(content, _extra_files=found)  # type: ignore[no-untyped-call]
    assert found[_VERSION_FILE] == version("bpu-kernels").encode()
    other = io.BytesIO()
    torch.jit.save(traced(), other, _extra_files={_VERSION_FILE: "0.0.1"})
    other.seek(0)
    with pytest.warns(UserWarning, match=r"saved by bpu-kernels 0\.0\.1"):
        load_traced(other)


def test_file_without_a_release_loads_without_a_warning() -> None:
    content = io.BytesIO()
    torch.jit.save(traced(), content)
    content.seek(0)
    assert isinstance(load_traced(content), torch.jit.ScriptModule)


def test_model_that_was_not_traced_is_refused() -> None:
    not_traced: Any = nn.Linear(4, 2)
    with pytest.raises(SourceError, match=r"expected what torch\.jit\.trace returned, got Linear"):
        save_traced(not_traced, io.BytesIO())


def test_moved_model_computes_the_same() -> None:
    model, x = traced(), torch.randn(3, 4)
    assert torch.equal(to_device(model, "cpu")(x), model(x))

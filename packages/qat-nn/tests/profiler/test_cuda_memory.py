"""Memory by module: asked for at the right moments, drawn, and on a GPU alone."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bpu_qat_nn import ArgumentError
from bpu_qat_nn.profiler import show_cuda_memory_consumption
from bpu_qat_nn.profiler.cuda_memory import memory_by_call
from bpu_qat_nn.testing import calibrate, prepared
from bpu_qat_nn.testing.classifiers import MLP

X = torch.linspace(-1, 1, 8).reshape(2, 4)


def net() -> Any:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def test_memory_is_asked_for_after_each_module_there_and_back() -> None:
    model, moments = net(), count()
    rows = memory_by_call(model, X, lambda: next(moments))

    assert [(row.event, row.name) for row in rows] == [
        ("start", ""),
        *(("forward", "0"), ("forward", "1"), ("forward", "2")),
        *(("backward", "2"), ("backward", "1"), ("backward", "0")),
        ("end", ""),
    ]
    assert [row.bytes for row in rows] == list(range(8))
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_model_under_qat_is_measured_too_and_the_user_says_how_to_go_back() -> None:
    model = prepared(MLP(), "bayes")
    calibrate(model, ((4, 20),))
    backwards: list[Any] = []
    rows = memory_by_call(model.train(), torch.randn(4, 20), lambda: 0, custom_backward=backwards.append)

    assert "body.0" in {row.name for row in rows}
    assert {row.event for row in rows} == {"start", "forward", "end"}
    assert backwards[0].shape == (4, 5)


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if not torch.cuda.is_available() else [])])
def test_other_devices_are_refused_before_anything_runs(device: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=f"expected a CUDA device that torch can use, got {device}"):
        show_cuda_memory_consumption(net(), X, device, out_dir=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_holds_more_while_activations_are_kept(tmp_path: Path) -> None:
    model = nn.Sequential(*(nn.Linear(256, 256) for _ in range(4)))
    rows = show_cuda_memory_consumption(model, torch.randn(4096, 256), "cuda", out_dir=str(tmp_path))

    forward = [row.bytes for row in rows if row.event == "forward"]
    assert forward == sorted(forward)
    assert rows[-1].bytes < forward[-1]
    assert (tmp_path / "mem_info.html").read_text().count("<rect") == len(rows)
    assert all(parameter.grad is None and parameter.device.type == "cpu" for parameter in model.parameters())

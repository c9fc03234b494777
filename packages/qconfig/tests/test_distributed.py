"""Two gloo processes with different data end with equal statistics: those of all the data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

if not torch.distributed.is_available():
    pytest.skip("torch was built without torch.distributed", allow_module_level=True)

import bpu_qconfig

WORKER = Path(__file__).with_name("distributed_worker.py")
OBSERVERS = [
    "MinMaxObserver",
    "MovingAverageMinMaxObserver",
    "MovingAveragePerChannelMinMaxObserver",
    "PerChannelMinMaxObserver",
    "PercentileObserver",
    "MSEObserver",
    "KLObserver",
    "MixObserver",
    "ClipObserver",
    "ClipStdObserver",
]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What both ranks saved."""
    folder = str(tmp_path_factory.mktemp("ranks"))
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, str(WORKER), str(rank), folder], env=environment) for rank in range(2)
    ]
    try:
        codes = [process.wait(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0, 0]
    return [torch.load(f"{folder}/{rank}.pt") for rank in range(2)]


def both_batches() -> list[torch.Tensor]:
    """The batches of both ranks, joined step by step along the elements of each channel."""
    generators = [torch.Generator().manual_seed(rank) for rank in range(2)]
    steps = [
        [torch.randn(4, 500, generator=generator) * (1 + 2 * rank) for rank, generator in enumerate(generators)]
        for _ in range(2)
    ]
    return [torch.cat(step, dim=1) for step in steps]


@pytest.mark.parametrize("name", OBSERVERS)
def test_ranks_hold_the_statistics_of_all_data(name: str, ranks: list[dict[str, Any]]) -> None:
    first, second = (rank["observers"][name] for rank in ranks)
    assert torch.equal(first, second)
    alone = getattr(bpu_qconfig, name)()
    for batch in both_batches():
        alone(batch)
    torch.testing.assert_close(first, torch.stack([alone.min_val, alone.max_val]), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("what", ["lsq", "ddp"])
def test_ranks_train_with_equal_scales(what: str, ranks: list[dict[str, Any]]) -> None:
    first, second = (rank["learning"][what] for rank in ranks)
    assert torch.equal(first, second)
    assert first.item() not in (0.0, 1.0)


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("nan", "batch 1 holds NaN or infinity (12 of 12"),
        ("inf", "batch 1 holds NaN or infinity (12 of 12"),
        ("empty", "batch 1 is empty"),
    ],
)
def test_bad_batch_of_one_rank_is_refused_on_all(kind: str, own: str, ranks: list[dict[str, Any]]) -> None:
    assert own in ranks[1]["bad"][kind]
    assert "on another rank" in ranks[0]["bad"][kind]

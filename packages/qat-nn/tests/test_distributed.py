"""Two processes under torchrun train what one process trains on the same data in the same order."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

if not torch.distributed.is_available():
    pytest.skip("torch was built without torch.distributed", allow_module_level=True)

from bpu_qat_nn import ObservedGraphModule
from bpu_qat_nn.testing import distributed as recipe

RANKS = 2
KINDS = list(recipe.QCONFIGS)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank ended with."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"]
    subprocess.run([*launcher, "-m", recipe.__name__, str(folder)], env=environment, check=True, timeout=200)
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


def differing(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> list[str]:
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


def accumulated(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    """Train in one process on the shares of all ranks, one after the other, a step each."""
    for step in steps:
        optimizer.zero_grad()
        for rank in range(RANKS):
            images, labels = recipe.share(step, rank, RANKS)
            loss = nn.functional.cross_entropy(model(images), labels) / RANKS
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def alone(kind: str, train: Callable[..., None]) -> tuple[ObservedGraphModule, dict[str, torch.Tensor]]:
    """Return the model that one process calibrates and trains, and its state after training."""
    model = recipe.make_model(kind)
    recipe.calibrate(model)
    train(model, recipe.training(model), range(recipe.STEPS))
    return model, {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stage", ["calibrated", "trained"])
def test_ranks_hold_equal_models(stage: str, kind: str, ranks: list[dict[str, Any]]) -> None:
    """Weights, observers' ranges, scales, learned or not."""
    assert differing(ranks[0][kind][stage], ranks[1][kind][stage]) == []


@pytest.mark.parametrize("kind", KINDS)
def test_calibration_sees_the_data_of_all_ranks(kind: str, ranks: list[dict[str, Any]]) -> None:
    model = recipe.make_model(kind)
    recipe.calibrate(model)
    assert differing(ranks[0][kind]["calibrated"], dict(model.state_dict())) == []


@pytest.mark.parametrize("kind", ["frozen", "lsq"])
def test_training_equals_that_of_one_process_bit_by_bit(kind: str, ranks: list[dict[str, Any]]) -> None:
    model, state = alone(kind, accumulated)
    different = differing(ranks[0][kind]["trained"], state)
    # The observers of learned scales only watch, in one process the two halves of a batch one after the other.
    assert [name for name in different if kind != "lsq" or not name.endswith(("min_val", "max_val"))] == []

    logits, right = recipe.evaluate(model)
    assert torch.equal(torch.cat([rank[kind]["logits"] for rank in ranks]), logits)
    assert int(right) == int(ranks[0][kind]["right"])


def test_ranges_that_follow_the_data_are_those_of_the_whole_batch(ranks: list[dict[str, Any]]) -> None:
    """In one process the batch is whole, so sums of gradients round differently; all else is equal."""
    _, state = alone("moving", recipe.train)
    for name, tensor in ranks[0]["moving"]["trained"].items():
        assert torch.allclose(tensor, state[name], rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("kind", KINDS)
def test_training_resumed_from_a_checkpoint_goes_on_as_if_never_stopped(kind: str, ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert differing(rank[kind]["resumed"], rank[kind]["trained"]) == []


@pytest.mark.skipif(not recipe.SHARDS_ON_CPU, reason="this torch runs FSDP2 on accelerators only")
@pytest.mark.parametrize("kind", KINDS)
def test_sharded_parameters_train_as_whole_ones(kind: str, ranks: list[dict[str, Any]]) -> None:
    assert differing(ranks[0][kind]["sharded"], ranks[0][kind]["trained"]) == []


def test_training_changed_the_model(ranks: list[dict[str, Any]]) -> None:
    for kind in KINDS:
        changed = set(differing(ranks[0][kind]["calibrated"], ranks[0][kind]["trained"]))
        assert {name for name in changed if name.endswith("weight")}
        scales = {name for name in changed if name.endswith("activation_post_process.scale")}
        assert bool(scales) == (kind != "frozen")

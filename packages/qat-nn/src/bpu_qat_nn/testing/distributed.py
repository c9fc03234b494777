"""Several processes: calibrate, train, save, resume, convert and evaluate a small net on every rank of torchrun.

``torchrun --nproc-per-node 2 -m bpu_qat_nn.testing.distributed FOLDER`` leaves what each rank ends with in
FOLDER/<rank>.pt.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from bpu_qat_nn.convert import convert_fx
from bpu_qat_nn.graph_module import ObservedGraphModule
from bpu_qat_nn.ops.stubs import DeQuantStub, QuantStub
from bpu_qat_nn.preparation.prepare import prepare_qat_fx
from bpu_qconfig import (
    FakeQuantState,
    QConfig,
    default_qat_8bit_fake_quant_qconfig,
    default_qat_8bit_lsq_quant_qconfig,
    get_default_qconfig,
    march_scope,
    set_fake_quantize,
    synchronize_observers,
)

PER_CHANNEL = {"qscheme": torch.per_channel_symmetric, "ch_axis": 0}
QCONFIGS: dict[str, QConfig] = {
    "moving": default_qat_8bit_fake_quant_qconfig,
    "frozen": get_default_qconfig(
        activation_qkwargs={"averaging_constant": 0.0}, weight_qkwargs={**PER_CHANNEL, "averaging_constant": 1.0}
    ),
    "lsq": default_qat_8bit_lsq_quant_qconfig,
}
"""Ranges that follow the data in training, ranges of calibration, learned scales."""
STEPS = 4
SHARDS_ON_CPU = hasattr(torch.cpu.Stream, "record_event")
"""Whether this torch can run FSDP2 without an accelerator, which 2.6 cannot."""


class Net(nn.Module):
    """A residual block and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        x = self.stem(self.quant(x))
        x = torch.relu(self.block(x) + x)
        y: Tensor = self.dequant(self.head(self.pool(x).flatten(1)))
        return y


def make_model(kind: str) -> ObservedGraphModule:
    """Return the same prepared model on every rank."""
    torch.manual_seed(0)
    with march_scope("bayes"):
        model = prepare_qat_fx(Net(), {"": QCONFIGS[kind]})
    synchronize_observers(model)
    return model


def batch(step: int) -> tuple[Tensor, Tensor]:
    """Return images and labels of a step, for all ranks together."""
    generator = torch.Generator().manual_seed(step)
    return torch.randn(8, 3, 8, 8, generator=generator), torch.randint(0, 4, (8,), generator=generator)


def share(step: int, rank: int, ranks: int) -> tuple[Tensor, Tensor]:
    """Return a rank's part of a batch."""
    images, labels = batch(step)
    return images.chunk(ranks)[rank], labels.chunk(ranks)[rank]


def calibrate(model: nn.Module, rank: int = 0, ranks: int = 1) -> None:
    """Observe; nothing is trained, so nothing but the observers needs the other ranks."""
    model.eval()
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    with torch.no_grad():
        for step in range(STEPS):
            model(share(step, rank, ranks)[0])


def training(model: nn.Module) -> torch.optim.Optimizer:
    """Put a model into QAT state, and return its optimizer."""
    model.train()
    set_fake_quantize(model, FakeQuantState.QAT)
    return torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range, rank: int = 0, ranks: int = 1) -> None:
    """Take steps on a rank's share; DistributedDataParallel averages the gradients."""
    for step in steps:
        images, labels = share(step, rank, ranks)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def evaluate(model: ObservedGraphModule, rank: int = 0, ranks: int = 1) -> tuple[Tensor, Tensor]:
    """Convert, and return the logits of this rank's share and the number of right answers on all ranks."""
    model.eval()
    set_fake_quantize(model, FakeQuantState.VALIDATION)
    quantized = convert_fx(model)
    images, labels = share(100, rank, ranks)
    with torch.no_grad():
        logits = quantized(images)
        assert torch.equal(logits, model(images))
    right = (logits.argmax(1) == labels).sum()
    if dist.is_initialized():
        dist.all_reduce(right)
    return logits, right


def run(kind: str, rank: int, ranks: int, folder: Path) -> dict[str, Any]:
    """Calibrate and train, once without a stop and once from a checkpoint in the middle."""
    model = make_model(kind)
    calibrate(model, rank, ranks)
    calibrated = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    wrapped = DistributedDataParallel(model)
    optimizer = training(model)
    train(wrapped, optimizer, range(STEPS // 2), rank, ranks)
    checkpoint = folder / f"{kind}.pt"
    if rank == 0:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, checkpoint)
    dist.barrier()
    train(wrapped, optimizer, range(STEPS // 2, STEPS), rank, ranks)

    resumed = make_model(kind)
    saved = torch.load(checkpoint)
    resumed.load_state_dict(saved["model"])
    resumed_optimizer = training(resumed)
    resumed_optimizer.load_state_dict(saved["optimizer"])
    train(DistributedDataParallel(resumed), resumed_optimizer, range(STEPS // 2, STEPS), rank, ranks)

    trained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    logits, right = evaluate(model, rank, ranks)
    return {
        "calibrated": calibrated,
        "trained": trained,
        "resumed": resumed.state_dict(),
        "sharded": train_sharded(kind, calibrated, rank, ranks) if SHARDS_ON_CPU else None,
        "logits": logits,
        "right": right,
    }


def train_sharded(kind: str, calibrated: dict[str, Tensor], rank: int, ranks: int) -> dict[str, Any]:
    """Train with FSDP2, every rank holding a part of each parameter; return the gathered state on rank 0."""
    model = make_model(kind)
    model.load_state_dict(calibrated)
    fully_shard(model, mesh=init_device_mesh("cpu", (ranks,)))
    train(model, training(model), range(STEPS), rank, ranks)
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))


def main(folder: Path) -> None:
    """Run all kinds on this rank."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.save({kind: run(kind, rank, ranks, folder) for kind in QCONFIGS}, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    main(Path(sys.argv[1]))

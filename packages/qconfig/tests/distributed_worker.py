"""One rank of test_distributed.py: observes batches of its own and saves what it ends with."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from bpu_qconfig import (
    ClipObserver,
    ClipStdObserver,
    FakeQuantize,
    KLObserver,
    LearnableFakeQuantize,
    MinMaxObserver,
    MixObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    MSEObserver,
    ObservationError,
    Observer,
    PercentileObserver,
    PerChannelMinMaxObserver,
    synchronize_observers,
)

OBSERVERS: dict[str, type[Observer]] = {
    cls.__name__: cls
    for cls in (
        MinMaxObserver,
        MovingAverageMinMaxObserver,
        MovingAveragePerChannelMinMaxObserver,
        PerChannelMinMaxObserver,
        PercentileObserver,
        MSEObserver,
        KLObserver,
        MixObserver,
        ClipObserver,
        ClipStdObserver,
    )
}


def batches(rank: int) -> list[torch.Tensor]:
    """Two batches; those of rank 1 are wider."""
    generator = torch.Generator().manual_seed(rank)
    return [torch.randn(4, 500, generator=generator) * (1 + 2 * rank) for _ in range(2)]


def observe_all(rank: int) -> dict[str, torch.Tensor]:
    results = {}
    for name, cls in OBSERVERS.items():
        observer = cls(is_sync_quantize=True)
        for batch in batches(rank):
            observer(batch)
        results[name] = torch.stack([observer.min_val, observer.max_val])
    return results


def start_learning(rank: int) -> dict[str, torch.Tensor]:
    """The start values of LSQ, and the scales of a plain quantizer under DDP."""
    learned = LearnableFakeQuantize()
    plain = FakeQuantize()
    model = DistributedDataParallel(torch.nn.Sequential(torch.nn.Linear(500, 4), learned, plain))
    synchronize_observers(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for batch in batches(rank):
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
    return {"lsq": learned.scale.detach(), "ddp": plain.scale.clone()}


def meet_bad_batches(rank: int) -> dict[str, str]:
    """Rank 1 alone has a bad batch; every rank must be told, and none may wait for ever."""
    messages = {}
    bad_batches = {
        "nan": torch.full((4, 3), torch.nan),
        "inf": torch.full((4, 3), torch.inf),
        "empty": torch.zeros(0, 3),
    }
    for name, bad in bad_batches.items():
        observer = PercentileObserver(is_sync_quantize=True)
        try:
            observer(bad if rank == 1 else torch.ones(4, 3))
        except ObservationError as error:
            messages[name] = str(error)
        assert not observer.observed
    return messages


def main(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    results = {"observers": observe_all(rank), "learning": start_learning(rank), "bad": meet_bad_batches(rank)}
    torch.save(results, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])

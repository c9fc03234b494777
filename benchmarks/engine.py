"""Integer inference: a Program on the native engine against ONNX Runtime and torch, and what the machine allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine_models import COMPETITORS, program
from integer_networks import NETWORKS
from limits import least_seconds
from measure import Comparison, compare, take_turns
from setting import Setting

__all__ = ["compare_engine"]

BATCHES = (1, 8)
THREADS = (1, 2)
SIZE = 224
LIKE = {"resnet50": "resnet18", "mobilenet_v2": "mobilenet_v2"}
"""Names of these networks -> of those that are trained."""


def compare_engine(setting: Setting, rounds: int, networks: Sequence[str]) -> Iterator[Comparison]:
    """Give the lines of MobileNetV2 and, where ResNet-18 is asked for, ResNet-50; a smaller size and batch count."""
    size = min(SIZE, setting.size * SIZE // 96)
    for network, make in NETWORKS.items():
        if LIKE[network] not in networks:
            continue
        for batch in sorted({min(batch, setting.batch) for batch in BATCHES}):
            for threads in THREADS:
                runs = {name: build(make(), batch, size, threads) for name, build in COMPETITORS.items()}
                ours, *others = take_turns(runs, rounds, threads=threads).items()
                here = {"network": network, "batch": batch, "size": size, "threads": threads}
                for theirs in others:
                    yield compare("engine", here, ours, theirs)
                for name, least in least_seconds(program(make(), batch, size), threads).items():
                    yield compare("engine", here, ours, (name, [least] * rounds))

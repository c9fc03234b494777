"""A network and what it is fed, and a training step of it; needs torch alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from branching_networks import BRANCHING
from float_networks import NETWORKS
from torch import Tensor, nn

__all__ = ["Setting", "inputs", "network", "training_step"]

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A network and what it is fed."""

    network: str = "resnet18"
    batch: int = 16
    size: int = 96
    """Height and width in pixels."""
    memory: str = "contiguous"
    """A key of ``FORMATS``."""
    threads: int = 1
    width: float = 1.0
    depth: int = 1


def network(setting: Setting) -> nn.Module:
    """Return the float network, in training mode; sets torch's threads."""
    torch.set_num_threads(setting.threads)
    torch.manual_seed(0)
    return in_format((NETWORKS | BRANCHING)[setting.network](setting.width, setting.depth), setting)


def in_format(model: nn.Module, setting: Setting) -> nn.Module:
    """Bring the weights to the setting's memory format."""
    moved: nn.Module = model.to(memory_format=FORMATS[setting.memory])  # type: ignore[call-overload]
    return moved


def inputs(setting: Setting) -> Tensor:
    """Return a batch of noise."""
    x = torch.randn(setting.batch, 3, setting.size, setting.size, generator=torch.Generator().manual_seed(1))
    return x.to(memory_format=FORMATS[setting.memory])


def training_step(model: nn.Module, x: Tensor) -> Callable[[], None]:
    """Return a step of stochastic gradient descent on random labels."""
    labels = torch.randint(0, 1000, (len(x),), generator=torch.Generator().manual_seed(2))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step

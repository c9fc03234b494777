"""Calibration: a pass that observes every activation, by observer, over the plain forward pass of the float model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial

import torch
from measure import Comparison, compare, take_turns
from setting import Setting, inputs
from subjects import float_network, prepared
from torch import Tensor, nn

from bpu_qconfig import FakeQuantState, get_default_qconfig

__all__ = ["compare_observers"]

OBSERVERS = ("min_max", "percentile", "mse", "kl", "mix", "clip_std")


def _evaluate(model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        model(x)


def compare_observers(setting: Setting, rounds: int, networks: Sequence[str]) -> Iterator[Comparison]:
    """Give the lines of the networks, for each observer of activations."""
    for network in networks:
        here = replace(setting, network=network)
        model, x = float_network(here).eval(), inputs(here)
        runs: dict[str, Callable[[], None]] = {"float evaluation": partial(_evaluate, model, x)}
        for name in OBSERVERS:
            qconfig = get_default_qconfig(activation_observer=name)
            observed = prepared(model, FakeQuantState.CALIBRATION, qconfig).eval()
            runs[name] = partial(_evaluate, observed, x)
        plain, *others = take_turns(runs, rounds, threads=here.threads).items()
        for ours in others:
            yield compare("calibration", asdict(here), ours, plain)

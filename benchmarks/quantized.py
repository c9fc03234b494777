"""The converted model in torch over its Program on the engine, and over the float model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

import torch
from measure import Comparison, compare, take_turns
from setting import Setting, inputs
from subjects import calibrated, float_network

import bpu_kernels
from bpu_deploy_tools import lower
from bpu_kernels.engine import set_engine_threads
from bpu_qat_nn import convert_fx

__all__ = ["compare_converted"]


def compare_converted(setting: Setting, rounds: int, networks: Sequence[str]) -> Iterator[Comparison]:
    """Give the lines of the networks."""
    for network in networks:
        here = replace(setting, network=network, batch=min(setting.batch, 8))
        yield from _compare(here, rounds)


def _compare(setting: Setting, rounds: int) -> Iterator[Comparison]:
    model, x = float_network(setting).eval(), inputs(setting)
    converted = convert_fx(calibrated(model, x))
    program = lower(converted, x)
    stored = bpu_kernels.quantize_inputs(program, x.permute(0, 2, 3, 1).contiguous().numpy())
    set_engine_threads(setting.threads)

    def run(module: torch.nn.Module) -> None:
        with torch.no_grad():
            module(x)

    runs = {
        "converted model": lambda: run(converted),
        "its Program": lambda: bpu_kernels.run(program, stored, backend="native"),
        "float evaluation": lambda: run(model),
    }
    ours, *others = take_turns(runs, rounds, threads=setting.threads).items()
    for theirs in others:
        yield compare("quantized", asdict(setting), ours, theirs)

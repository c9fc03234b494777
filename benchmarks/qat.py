"""Training: a step under quantization, an evaluation in VALIDATION, and what is kept for the gradient, over float."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

import torch
from measure import Comparison, compare, take_turns
from memory import peak_resident, saved_bytes
from setting import Setting, inputs, training_step
from subjects import calibrated, float_network, prepared
from torch.fx.experimental.optimization import fuse

from bpu_qconfig import FakeQuantState

__all__ = ["compare_networks"]


def compare_networks(setting: Setting, rounds: int, networks: Sequence[str]) -> Iterator[Comparison]:
    """Give the lines of the networks in both memory formats."""
    for network in networks:
        for memory in ("contiguous", "channels_last"):
            here = replace(setting, network=network, memory=memory)
            yield from _step(here, rounds)
            yield _evaluation(here, rounds)
        yield from _memory(replace(setting, network=network))


def _step(setting: Setting, rounds: int) -> Iterator[Comparison]:
    model, x = float_network(setting), inputs(setting)
    folded = fuse(model.eval())  # BatchNorm is in the weights, as in the model under training
    qat = prepared(model, FakeQuantState.QAT)
    runs = {
        "QAT step": training_step(qat, x),
        "float step": training_step(model.train(), x),
        "float step, BatchNorm folded": training_step(folded.train(), x),
    }
    times = take_turns(runs, rounds, threads=setting.threads)
    (ours, our_times), *others = times.items()
    for theirs, their_times in others:
        yield compare("qat", asdict(setting), (ours, our_times), (theirs, their_times))


def _evaluation(setting: Setting, rounds: int) -> Comparison:
    model, x = float_network(setting).eval(), inputs(setting)
    validated = calibrated(model, x)

    def run(module: torch.nn.Module) -> None:
        with torch.no_grad():
            module(x)

    runs = {"VALIDATION": lambda: run(validated), "float evaluation": lambda: run(model)}
    times = take_turns(runs, rounds, threads=setting.threads)
    (ours, theirs) = times.items()
    return compare("qat", asdict(setting), ours, theirs)


def _memory(setting: Setting) -> Iterator[Comparison]:
    model, x = float_network(setting), inputs(setting)
    qat = prepared(copy.deepcopy(model), FakeQuantState.QAT)
    saved = [float(saved_bytes(each, x)) / 2**20 for each in (qat, model.train())]
    yield compare("qat", asdict(setting), ("QAT, saved", saved[:1]), ("float, saved", saved[1:]), unit="MiB")
    peaks = [peak_resident(setting, quantized=each) / 2**20 for each in (True, False)]
    yield compare("qat", asdict(setting), ("QAT, peak", peaks[:1]), ("float, peak", peaks[1:]), unit="MiB")

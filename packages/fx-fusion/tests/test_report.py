"""The fusion report answers why something next to a convolution stayed separate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bpu_fx_fusion import Fused, FusionReport, KeptFunction, NotFused, fuse_fx


class Near(nn.Module):
    """Modules whose forward is a near miss of a pattern."""

    def __init__(self, run: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)
        self.deconv = nn.ConvTranspose2d(2, 2, 1)
        self.bn = nn.BatchNorm2d(2)
        self.bn3 = nn.BatchNorm2d(3)
        self.untracked = nn.BatchNorm2d(2, track_running_stats=False)
        self.linear = nn.Linear(2, 2)
        self.relu = nn.ReLU()
        self.constant = nn.Parameter(torch.ones(1))
        self.run = run

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def used_twice(m: Any, x: Tensor) -> Any:
    y = m.conv(x)
    return m.relu(m.bn(y)), y


def bn_used_twice(m: Any, x: Tensor) -> Any:
    y = m.bn(m.conv(x))
    return m.relu(y), y


def doubled(m: Any, x: Tensor) -> Any:
    y = m.bn(m.conv(x))
    return m.relu(y + y)


CASES: dict[str, tuple[Callable[[Any, Tensor], Any], tuple[str, ...], str, set[str]]] = {
    "conv used twice": (used_twice, ("conv", "bn", "relu"), "the output of conv has 2 users", set()),
    "bn used twice": (bn_used_twice, ("conv", "bn", "relu"), "the output of bn has 2 users", {"conv"}),
    "added to itself": (
        doubled,
        ("conv", "bn", "_generated_add_0", "relu"),
        "the result of the convolution is added to itself",
        {"conv"},
    ),
    "number added": (
        lambda m, x: m.bn(m.conv(x)) + 1,
        ("conv", "bn", "_generated_add_scalar_0"),
        "a number is added, not a tensor",
        {"conv"},
    ),
    "constant added": (
        lambda m, x: m.conv(x) + m.constant,
        ("conv", "_generated_add_0"),
        "the other operand, constant, is a constant",
        set(),
    ),
    "linear and BatchNorm2d": (
        lambda m, x: m.relu(m.bn(m.linear(x))),
        ("linear", "bn", "relu"),
        "BatchNorm2d normalises axis 1 but Linear's features are the last axis",
        set(),
    ),
    "wrong width": (
        lambda m, x: m.bn3(m.conv(x)),
        ("conv", "bn3"),
        "Conv2d has 2 outputs but BatchNorm2d normalises 3 features",
        set(),
    ),
    "no statistics": (
        lambda m, x: m.untracked(m.conv(x)),
        ("conv", "untracked"),
        "BatchNorm2d has no running statistics (track_running_stats=False)",
        set(),
    ),
    "output size given": (
        lambda m, x: m.bn(m.deconv(x, output_size=[2, 2])),
        ("deconv", "bn"),
        "deconv is called with more than its input",
        set(),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_near_miss_has_a_reason(case: str) -> None:
    run, members, reason, fused = CASES[case]

    gm = fuse_fx(Near(run).eval())

    assert gm.fusion_report.not_fused == (NotFused(members=members, reason=reason),)
    assert gm.fused_modules.keys() == fused
    assert reason in str(gm.fusion_report)


def test_a_model_without_near_misses_has_an_empty_report() -> None:
    gm = fuse_fx(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Tanh(), nn.ReLU()))

    assert gm.fusion_report == FusionReport()
    assert str(gm.fusion_report) == "Nothing to fuse."


def test_a_report_prints_as_tables() -> None:
    report = FusionReport(
        fused=(Fused(slot="add", members=("conv", "add"), pattern="Conv2d + add", result="ConvAdd2d"),),
        not_fused=(NotFused(members=("a", "b"), reason="the output of a has 2 users"),),
        kept_functions=(KeptFunction(node="sum_1", function="sum", reason="no dim is given"),),
    )

    assert str(report) == (
        "Fused\n"
        "module  class      pattern       made from\n"
        "------  ---------  ------------  ---------\n"
        "add     ConvAdd2d  Conv2d + add  conv, add\n"
        "\n"
        "Not fused\n"
        "modules  reason\n"
        "-------  ---------------------------\n"
        "a, b     the output of a has 2 users\n"
        "\n"
        "Kept as functions\n"
        "node   function  reason\n"
        "-----  --------  ---------------\n"
        "sum_1  sum       no dim is given"
    )

"""Patterns: equivalent forms are one pattern, a second handler is an error, and users can add their own."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Node

from bpu_fx_fusion import (
    FUSION_PATTERNS,
    ConvBNAddedReLUFusion,
    ConvBNAddReLUFusion,
    FloatFunctional,
    FusionHandler,
    MatchAllNode,
    PatternError,
    fuse_fx,
    register_fusion_pattern,
)

CONVS = (nn.Conv2d, nn.ConvTranspose2d, nn.Conv3d, nn.Linear)
BNS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
RELUS = (nn.ReLU, nn.ReLU6)
ADD = FloatFunctional.add


@pytest.fixture
def table() -> Iterator[dict[Any, Any]]:
    """The table of patterns, restored afterwards."""
    before = dict(FUSION_PATTERNS)
    yield FUSION_PATTERNS
    FUSION_PATTERNS.clear()
    FUSION_PATTERNS.update(before)


def test_the_default_patterns_are_the_full_product() -> None:
    expected: dict[Any, Any] = {}
    for conv in CONVS:
        for chain in (conv, *((bn, conv) for bn in BNS)):
            ends = {
                chain: ConvBNAddReLUFusion,
                (ADD, chain, MatchAllNode): ConvBNAddReLUFusion,
                (ADD, MatchAllNode, chain): ConvBNAddedReLUFusion,
            }
            expected |= ends
            expected |= {(relu, end): handler for (end, handler), relu in product(ends.items(), RELUS)}
        del expected[conv]

    assert expected == FUSION_PATTERNS


@pytest.mark.parametrize(
    "form",
    [nn.quantized.FloatFunctional.add, FloatFunctional.add, torch.add, operator.add, torch.Tensor.add],
    ids=["torch FloatFunctional", "FloatFunctional", "torch.add", "operator.add", "Tensor.add"],
)
@pytest.mark.parametrize("relu", [nn.ReLU, F.relu, torch.relu], ids=["nn.ReLU", "F.relu", "torch.relu"])
def test_equivalent_forms_are_one_pattern(form: Any, relu: Any, table: dict[Any, Any]) -> None:
    before = len(table)

    register_fusion_pattern((relu, (form, nn.Conv2d, MatchAllNode)))(ConvBNAddReLUFusion)

    assert len(table) == before


class Other(ConvBNAddReLUFusion):
    """Another handler for the same pattern."""


def test_a_second_handler_for_a_pattern_is_refused(table: dict[Any, Any]) -> None:
    with pytest.raises(PatternError, match=r"\(ReLU, Conv2d\) is registered already with ConvBNAddReLUFusion; Other"):
        register_fusion_pattern((F.relu, nn.Conv2d))(Other)


@pytest.mark.parametrize(
    "pattern",
    [(), ((nn.ReLU,), nn.Conv2d), (MatchAllNode, nn.Conv2d), "relu", (nn.ReLU, 3), (nn.ReLU, int)],
    ids=["empty", "begins with a tuple", "begins with MatchAllNode", "text", "number", "no module"],
)
def test_malformed_patterns_are_refused(pattern: Any, table: dict[Any, Any]) -> None:
    with pytest.raises(PatternError, match="pattern"):
        register_fusion_pattern(pattern)(ConvBNAddReLUFusion)


class ConvFlatten(FusionHandler):
    """Moves a flatten into the module before it."""

    @property
    def slot(self) -> Node:
        return self.match.nodes[-1]

    @property
    def inputs(self) -> tuple[Any, ...]:
        return self.slot.args

    def refusal(self) -> str | None:
        return None if self.match.nodes[0].args[1:] == (1,) else "flattens other than from dimension 1"

    def build(self) -> nn.Module:
        return nn.Sequential(self.context.module(self.slot), nn.Flatten(1))


class Flattens(nn.Module):
    def __init__(self, start: int) -> None:
        super().__init__()
        self.start = start
        self.conv = nn.Conv1d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.conv(x), self.start)


def test_users_can_fuse_patterns_of_their_own(table: dict[Any, Any]) -> None:
    register_fusion_pattern((torch.flatten, nn.Conv1d))(ConvFlatten)
    model = Flattens(1)

    fused = fuse_fx(model)

    assert fused.fused_modules == {"conv": ("conv", "flatten")}
    assert [n.op for n in fused.graph.nodes] == ["placeholder", "call_module", "output"]
    x = torch.randn(2, 2, 3)
    torch.testing.assert_close(fused(x), model(x))
    assert [n.reason for n in fuse_fx(Flattens(0)).fusion_report.not_fused] == ["flattens other than from dimension 1"]


def test_a_handler_refuses_operations_that_it_has_no_module_for(table: dict[Any, Any]) -> None:
    register_fusion_pattern((nn.PReLU, nn.Conv2d))(ConvBNAddReLUFusion)
    register_fusion_pattern((nn.ReLU, nn.Conv1d))(ConvBNAddReLUFusion)

    for model in (nn.Sequential(nn.Conv2d(1, 1, 1), nn.PReLU()), nn.Sequential(nn.Conv1d(1, 1, 1), nn.ReLU())):
        (entry,) = fuse_fx(model).fusion_report.not_fused
        assert entry.members == ("0", "1")
        assert entry.reason.startswith("ConvBNAddReLUFusion has no module for Conv")

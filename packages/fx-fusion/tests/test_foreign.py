"""Functions of torchvision in a traced model; a stand-in of that name serves, since they are known by name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bpu_fx_fusion import DropBlock, DropPath, RoIAlign, fuse_fx

HOMES = {
    "roi_align": "def roi_align(input, boxes, output_size, spatial_scale=1.0, sampling_ratio=-1, aligned=False): ...",
    "stochastic_depth": "def stochastic_depth(input, p, mode, training=True): return input * 1",
    "drop_block": "def drop_block2d(input, p, block_size, inplace=False, eps=1e-06, training=True): return input * 2",
    "boxes": "def nms(boxes, scores, iou_threshold): return scores.argsort(descending=True)",
}
"""Module of torchvision.ops -> its function; what the first returns does not matter, nobody may call it."""


@pytest.fixture
def ops(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Give ``torchvision.ops``, whose names hide its modules of the same name, as in torchvision."""
    package = ModuleType("torchvision.ops")
    for name, source in HOMES.items():
        home = ModuleType(f"torchvision.ops.{name}")
        exec(source, vars(home))
        monkeypatch.setitem(sys.modules, home.__name__, home)
        vars(package).update({key: value for key, value in vars(home).items() if not key.startswith("__")})
    monkeypatch.setitem(sys.modules, "torchvision.ops", package)
    return package


class Calls(nn.Module):
    """What the function given here does."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, boxes: Tensor) -> Any:
        return self.function(x, boxes, self)


X, BOXES = torch.randn(2, 3, 8, 8), torch.tensor([[0.0, 1.0, 4.0, 6.0], [2.0, 2.0, 7.0, 5.0]])

REPLACED: dict[str, tuple[Callable[[Any], Callable[..., Any]], type[nn.Module], str]] = {
    "roi_align": (
        lambda ops: lambda x, boxes, model: ops.roi_align(x, [boxes, boxes], (2, 3), 0.5, sampling_ratio=2),
        RoIAlign,
        "output_size=(2, 3), sampling_ratio=2, aligned=False",
    ),
    "roi_align_of_numbered_boxes": (
        lambda ops: lambda x, boxes, model: ops.roi_align(x, boxes, 2, 1.0, 2, True),
        RoIAlign,
        "output_size=(2, 2), sampling_ratio=2, aligned=True",
    ),
    "stochastic_depth": (
        lambda ops: lambda x, boxes, model: ops.stochastic_depth(x, 0.2, "row", training=model.training),
        DropPath,
        "p=0.2",
    ),
    "drop_block2d": (
        lambda ops: lambda x, boxes, model: ops.drop_block2d(x, 0.1, 3, training=model.training),
        DropBlock,
        "p=0.1, block_size=3",
    ),
}
"""Name -> what a model calls, what it becomes, and what that shows of its arguments."""


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluating"])
@pytest.mark.parametrize("example_inputs", [None, (X, BOXES)], ids=["plain", "with_examples"])
@pytest.mark.parametrize("name", REPLACED)
def test_function_becomes_the_module_that_does_the_same(
    ops: Any, name: str, example_inputs: Any, training: bool
) -> None:
    function, kind, shown = REPLACED[name]
    fused = fuse_fx(Calls(function(ops)).train(training), example_inputs=example_inputs)

    (module,) = fused.children()
    assert type(module) is kind
    assert module.extra_repr() == shown
    assert module.training is training


def test_names_of_the_functions_are_restored(ops: Any) -> None:
    before = dict(vars(ops))
    fuse_fx(Calls(REPLACED["roi_align"][0](ops)))

    assert vars(ops) == before


def test_pooling_of_numbered_regions_equals_that_of_lists(ops: Any) -> None:
    by_list = fuse_fx(Calls(lambda x, boxes, model: ops.roi_align(x, [boxes, boxes], 2, 0.5, 2)))
    by_number = fuse_fx(Calls(lambda x, boxes, model: ops.roi_align(x, boxes, 2, 0.5, 2)))
    numbered = torch.cat([torch.tensor([[0.0], [0.0], [1.0], [1.0]]), BOXES.repeat(2, 1)], 1)

    torch.testing.assert_close(by_list(X, BOXES), by_number(X, numbered))


def test_number_of_samples_that_follows_the_box_stays_a_function(ops: Any) -> None:
    fused = fuse_fx(Calls(lambda x, boxes, model: ops.roi_align(x, [boxes], 2)))

    (kept,) = fused.fusion_report.kept_functions
    assert kept.function == "roi_align"
    assert kept.reason.endswith("Give a number, such as sampling_ratio=2")


def test_dropping_that_is_switched_off_for_good_is_left_out(ops: Any) -> None:
    fused = fuse_fx(Calls(lambda x, boxes, model: ops.stochastic_depth(x, 0.5, "batch", training=False)).train())

    assert torch.equal(fused(X, BOXES), X)


def test_suppression_is_one_node_and_runs_on_real_tensors(ops: Any) -> None:
    fused = fuse_fx(Calls(lambda x, boxes, model: ops.nms(boxes, x, 0.5)), example_inputs=(X[0, 0, 0], BOXES))

    assert [node.target for node in fused.graph.nodes if node.op == "call_function"] == [ops.nms]
    assert torch.equal(fused(torch.tensor([0.1, 0.9]), BOXES), torch.tensor([1, 0]))


def test_blocks_are_squares_and_the_mean_is_kept() -> None:
    torch.manual_seed(0)
    drop = DropBlock(0.3, 3)
    x = torch.ones(4, 8, 20, 20)
    dropped = drop(x)

    zero = (dropped == 0).float()
    whole = torch.nn.functional.max_pool2d(
        torch.nn.functional.pad((torch.nn.functional.avg_pool2d(zero, 3, 1) > 0.99).float(), [2] * 4), 3, 1
    )
    assert torch.equal(whole, zero)
    assert 0.2 < float(zero.mean()) < 0.3
    torch.testing.assert_close(dropped.mean(), torch.tensor(1.0))
    assert drop.eval()(x) is x

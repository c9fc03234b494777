"""GraphModuleWithAttr keeps what the model had, also when it is copied and pickled."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_fx_fusion import FloatFunctional, GraphModuleWithAttr, copy_attributes, fuse_fx, trace, wrap


@wrap()
def positive(x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


class Model(nn.Module):
    num_classes = 5
    buffer: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.bn = nn.BatchNorm2d(2)
        self.add = FloatFunctional()
        self.unused = nn.Linear(2, 3)
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("buffer", torch.zeros(1), persistent=False)
        self.qconfig = "mine"
        self.settings = {"names": ["a", "b"]}

    def forward(self, x: Tensor) -> Any:
        y = self.add.add(self.bn(self.conv(x)), x) + positive(x)
        return self.finish(F.lp_pool2d(y, 2.0, 2)), x[..., 0:1]

    @wrap()
    def finish(self, x: Tensor) -> Tensor:
        return (x if self.training else -x) * self.doubled

    @property
    def doubled(self) -> int:
        return self.num_classes * 2

    @classmethod
    def made_by(cls) -> str:
        return cls.__name__

    @staticmethod
    def constant() -> int:
        return 7


class ObservedGraphModule(GraphModuleWithAttr):
    """As bpu_qat_nn derives one."""


def copied(gm: GraphModuleWithAttr) -> GraphModuleWithAttr:
    return copy.copy(gm)


def deep_copied(gm: GraphModuleWithAttr) -> GraphModuleWithAttr:
    return copy.deepcopy(gm)


def pickled(gm: GraphModuleWithAttr) -> GraphModuleWithAttr:
    loaded = pickle.loads(pickle.dumps(gm))
    assert isinstance(loaded, GraphModuleWithAttr)
    return loaded


def derived(gm: GraphModuleWithAttr) -> GraphModuleWithAttr:
    return ObservedGraphModule(gm, copy.deepcopy(gm.graph))


def same(gm: GraphModuleWithAttr) -> GraphModuleWithAttr:
    return gm


COPIES = [same, copied, deep_copied, pickled, derived, trace]


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("make", [trace, fuse_fx])
def test_all_attributes_survive(
    how: Callable[[GraphModuleWithAttr], GraphModuleWithAttr], make: Callable[[nn.Module], GraphModuleWithAttr]
) -> None:
    model = Model()

    gm = how(make(model))

    assert type(gm).__name__ == "Model"
    assert (gm.num_classes, gm.doubled, gm.made_by(), gm.constant()) == (5, 10, "Model", 7)
    assert (gm.qconfig, gm.settings) == ("mine", {"names": ["a", "b"]})
    assert isinstance(gm.unused, nn.Linear)
    assert dict(gm.named_buffers())["buffer"].shape == (1,)
    assert "buffer" not in gm.state_dict()
    assert "scale" in gm.state_dict()
    assert not hasattr(gm, "no_such_attribute")


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_copies_compute_the_same(
    how: Callable[[GraphModuleWithAttr], GraphModuleWithAttr],
    training: bool,
    randomize: Callable[[nn.Module], nn.Module],
) -> None:
    gm = fuse_fx(randomize(Model())).train(training)
    x = torch.randn(2, 1, 4, 4)

    expected, result = gm(x), how(gm)(x)

    torch.testing.assert_close(result, expected, rtol=0, atol=0)
    gm.graph.lint()


@pytest.mark.parametrize("how", COPIES)
def test_copies_keep_the_records_of_fusion(how: Callable[[GraphModuleWithAttr], GraphModuleWithAttr]) -> None:
    gm = fuse_fx(Model())

    result = how(gm)

    assert result.fused_modules == gm.fused_modules == {"add": ("conv", "bn", "add")}
    assert result.generated_modules == gm.generated_modules == {"_generated_add_0": ""}
    assert result.fusion_report == gm.fusion_report
    assert [n.meta["owner"] for n in result.graph.nodes] == [n.meta["owner"] for n in gm.graph.nodes]
    assert [n.name for n in result.graph.nodes] == [n.name for n in gm.graph.nodes]


@pytest.mark.parametrize("how", [deep_copied, pickled])
def test_deep_copies_share_nothing(how: Callable[[GraphModuleWithAttr], GraphModuleWithAttr]) -> None:
    gm = fuse_fx(Model())

    result = how(gm)

    with torch.no_grad():
        result.get_parameter("scale").fill_(9)
    result.settings["names"].append("c")
    result.generated_modules["more"] = ""
    assert gm.get_parameter("scale").item() == 1
    assert gm.settings == {"names": ["a", "b"]}
    assert "more" not in gm.generated_modules


def test_wrapped_methods_of_a_copy_see_the_copy() -> None:
    gm = trace(Model())
    x = torch.ones(1, 1, 2, 2)

    for how in (deep_copied, pickled, copied):
        copy_of = how(gm).eval()
        assert copy_of.finish(x)[0, 0, 0, 0] == -10
    assert gm.train().finish(x)[0, 0, 0, 0] == 10


def test_copies_have_the_class_that_was_copied() -> None:
    observed = derived(trace(Model()))

    for how in (copied, deep_copied, pickled):
        assert isinstance(how(observed), ObservedGraphModule)


def test_copy_attributes_gives_a_module_what_another_has() -> None:
    model, plain = Model(), nn.Module()
    model.register_forward_hook(lambda module, args, output: None)

    copy_attributes(model, plain)

    assert plain.conv is model.conv
    assert plain.qconfig == "mine"
    assert plain.state_dict().keys() == model.state_dict().keys()
    assert not plain._forward_hooks


def test_a_deep_copy_may_be_part_of_a_larger_one() -> None:
    gm = trace(Model())
    pair = nn.ModuleList([gm, gm])

    first, second = copy.deepcopy(pair)

    assert first is second is not gm


def test_the_graph_can_be_edited_as_any_other() -> None:
    gm = trace(nn.Sequential(nn.ReLU()))
    relu = next(n for n in gm.graph.nodes if n.op == "call_module")
    with gm.graph.inserting_after(relu):
        doubled = gm.graph.call_function(torch.mul, (relu, 2))
    relu.replace_all_uses_with(doubled)
    doubled.args = (relu, 2)
    gm.recompile()

    assert gm(torch.ones(1)).item() == 2
    assert isinstance(gm, torch.fx.GraphModule)

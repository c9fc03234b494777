"""`fuse_fx`: what fuses, where the result lives, and that the model itself stays as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_fx_fusion import ConfigError, FloatFunctional, FoldedLinear, InputShapeError, TraceError, fuse_fx

Randomize = Callable[[nn.Module], nn.Module]

LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], tuple[int, ...]]] = {
    "Conv2d": (lambda: nn.Conv2d(4, 4, 1), lambda: nn.BatchNorm2d(4), (2, 4, 3, 3)),
    "ConvTranspose2d": (
        lambda: nn.ConvTranspose2d(4, 4, 1, groups=2),
        lambda: nn.BatchNorm2d(4),
        (2, 4, 3, 3),
    ),
    "Conv3d": (lambda: nn.Conv3d(4, 4, 1), lambda: nn.BatchNorm3d(4), (2, 4, 2, 2, 2)),
    "Linear": (lambda: nn.Linear(4, 4), lambda: nn.BatchNorm1d(4), (5, 4)),
}
ADDS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "none": lambda model, x, y: x,
    "first": lambda model, x, y: x + y,
    "second": lambda model, x, y: y + x,
    "inplace": lambda model, x, y: x.add_(y),
    "torch": lambda model, x, y: torch.add(x, y),
    "functional": lambda model, x, y: model.functional.add(x, y),
    "functional_second": lambda model, x, y: model.functional.add(y, x),
    "torch_functional": lambda model, x, y: model.torch_functional.add(x, y),
}
RELUS: dict[str, Callable[[Any, Any], Any]] = {
    "none": lambda model, x: x,
    "ReLU": lambda model, x: model.relu(x),
    "ReLU6": lambda model, x: model.relu6(x),
    "F.relu": lambda model, x: F.relu(x),
    "F.relu6": lambda model, x: F.relu6(x, inplace=True),
    "method": lambda model, x: x.relu(),
}


class Chain(nn.Module):
    """conv [+ bn] [+ add] [+ relu], written in any of the supported forms."""

    def __init__(self, layer: str, bn: bool, add: str, relu: str) -> None:
        super().__init__()
        make_conv, make_bn, _ = LAYERS[layer]
        self.conv = make_conv()
        self.bn = make_bn() if bn else None
        self.functional = FloatFunctional()
        self.torch_functional = nn.quantized.FloatFunctional()
        self.relu = nn.ReLU()
        self.relu6 = nn.ReLU6()
        self.add_form, self.relu_form = ADDS[add], RELUS[relu]

    def forward(self, x: Tensor, y: Tensor) -> Any:
        z = self.conv(x)
        if self.bn is not None:
            z = self.bn(z)
        return self.relu_form(self, self.add_form(self, z, y))


CHAINS = [
    chain
    for chain in product(LAYERS, (False, True), ADDS, RELUS)
    if chain[1:] != (False, "none", "none") and (chain[0] == "Conv2d" or chain[2] in ("none", "first", "second"))
]


@pytest.mark.parametrize(("layer", "bn", "add", "relu"), CHAINS, ids=lambda value: str(value))
def test_every_form_of_every_chain_becomes_one_module(
    layer: str, bn: bool, add: str, relu: str, randomize: Randomize
) -> None:
    model = randomize(Chain(layer, bn, add, relu)).eval()
    x, y = torch.randn(LAYERS[layer][2]), torch.randn(LAYERS[layer][2])

    fused = fuse_fx(model)

    (call,) = [n for n in fused.graph.nodes if n.op not in ("placeholder", "output")]
    prefix, suffix = layer.removesuffix("2d").removesuffix("3d"), layer[-2:] if layer[-1] == "d" else ""
    activation = {"none": "", "ReLU6": "ReLU6", "F.relu6": "ReLU6"}.get(relu, "ReLU")
    parts = f"{'Add' if add != 'none' else ''}{activation}"
    name = f"{prefix}{parts}{suffix}" if parts else ("FoldedLinear" if layer == "Linear" else layer)
    assert type(fused.get_submodule(call.target)).__name__ == name
    assert call.target == {
        "none": "conv",
        "functional": "functional",
        "functional_second": "functional",
        "torch_functional": "torch_functional",
    }.get(add, "_generated_add_0")
    with torch.no_grad():
        torch.testing.assert_close(fused(x, y), model(x, y), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("add", "relu"), list(product(("none", "first"), ("none", "ReLU"))))
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_the_batch_norm_can_be_kept(layer: str, add: str, relu: str, training: bool, randomize: Randomize) -> None:
    model = randomize(Chain(layer, True, add, relu)).train(training)
    reference = copy.deepcopy(model)
    x, y = torch.randn(LAYERS[layer][2]), torch.randn(LAYERS[layer][2])

    fused = fuse_fx(model, absorb_batch_norm=False)

    (slot,) = fused.fused_modules
    children = [name for name, _ in fused.get_submodule(slot).named_children()]
    assert children == ["conv", "bn", *["relu"] * (relu != "none")]
    torch.testing.assert_close(fused(x, y), reference(x, y), rtol=0, atol=0)


def test_members_become_identity_and_the_rest_is_shared() -> None:
    model = Chain("Conv2d", True, "first", "ReLU")

    fused = fuse_fx(model)

    assert [type(fused.get_submodule(path)) for path in ("conv", "bn", "relu")] == [nn.Identity] * 3
    assert fused.relu6 is model.relu6
    assert fused.fused_modules == {"_generated_add_0": ("conv", "bn", "_generated_add_0", "relu")}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("absorb", [True, False], ids=["absorb", "keep"])
def test_the_model_itself_is_not_changed(training: bool, absorb: bool, randomize: Randomize) -> None:
    model = randomize(nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.Sequential(nn.ReLU(), nn.Dropout(0.5))))
    model.train(training)
    model.get_submodule("1").eval()  # a frozen BatchNorm
    structure, state = str(model), copy.deepcopy(model.state_dict())
    flags = {path: module.training for path, module in model.named_modules()}
    x = torch.randn(1, 2, 3, 3)
    torch.manual_seed(1)
    before = model(x)

    fused = fuse_fx(model, absorb_batch_norm=absorb)

    assert str(model) == structure
    assert {path: module.training for path, module in model.named_modules()} == flags
    torch.testing.assert_close(dict(model.state_dict()), dict(state), rtol=0, atol=0)
    torch.manual_seed(1)
    torch.testing.assert_close(model(x), before, rtol=0, atol=0)
    torch.manual_seed(1)
    torch.testing.assert_close(fused(x), before)
    for path in ("", "0", "2", "2.0", "2.1"):
        assert fused.get_submodule(path).training == training
    assert type(fused.get_submodule("1")) is nn.Identity
    assert not fused.get_submodule("1").training


def test_folded_parameters_are_copies_and_train_apart_from_the_model() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
    fused = fuse_fx(model)

    with torch.no_grad():
        fused.get_parameter("0.weight").add_(1)

    assert not torch.equal(fused.get_parameter("0.weight"), model.get_parameter("0.weight") + 1)
    assert fused.get_submodule("0") is not model.get_submodule("0")


@pytest.mark.parametrize("absorb", [True, False], ids=["absorb", "keep"])
def test_fusing_again_changes_nothing(absorb: bool, randomize: Randomize) -> None:
    model = randomize(Chain("Conv2d", True, "first", "F.relu")).eval()
    once = fuse_fx(model, absorb_batch_norm=absorb)

    twice = fuse_fx(once, absorb_batch_norm=absorb)

    assert str(twice) == str(once)
    assert (twice.fused_modules, twice.generated_modules) == (once.fused_modules, once.generated_modules)
    assert twice.fusion_report == once.fusion_report
    x, y = torch.randn(1, 4, 3, 3), torch.randn(1, 4, 3, 3)
    torch.testing.assert_close(twice(x, y), once(x, y), rtol=0, atol=0)


def test_a_linear_with_a_folded_batch_norm_refuses_other_than_two_dimensions() -> None:
    for model in (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), Chain("Linear", True, "none", "ReLU")):
        fused = fuse_fx(model)
        arguments = (torch.ones(2, 4, 4),) * (2 if isinstance(model, Chain) else 1)

        with pytest.raises(InputShapeError, match="absorb_batch_norm=False"):
            fused(*arguments)
    assert isinstance(fuse_fx(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))).get_submodule("0"), FoldedLinear)


class Bottleneck(nn.Module):
    """A residual block with a downsampling branch and one ReLU for both places, as torchvision writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(4)
        self.downsample = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.downsample(x)
        result: Tensor = self.relu(out)
        return result


def test_a_residual_block_fuses_completely(randomize: Randomize) -> None:
    model = randomize(nn.Sequential(Bottleneck(), nn.Flatten())).eval()

    fused = fuse_fx(model)

    assert fused.fused_modules == {
        "0_generated_add_0": ("0.conv2", "0.bn2", "0_generated_add_0", "0.relu"),
        "0.downsample.0": ("0.downsample.0", "0.downsample.1"),
        "0.conv1": ("0.conv1", "0.bn1", "0.relu"),
    }
    assert isinstance(fused.get_submodule("0.relu"), nn.Identity)
    assert fused.fusion_report.not_fused == ()
    x = torch.randn(1, 3, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(fused(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"conv": "conv", "bn": "bn", "functional": "add"}, "conv"),
        ({"conv": None, "functional": "add"}, None),
        ({"functional": "add", "relu": "relu"}, "add"),
        ({"relu": "relu"}, "relu"),
    ],
    ids=["conv", "conv says float", "add", "relu"],
)
def test_the_qconfig_of_the_first_member_that_has_one_is_carried_over(given: dict[str, Any], expected: Any) -> None:
    model = Chain("Conv2d", True, "functional", "ReLU")
    for path, qconfig in given.items():
        vars(model.get_submodule(path))["qconfig"] = qconfig

    fused = fuse_fx(model).get_submodule("functional")

    assert fused.qconfig == expected
    assert "qconfig" not in vars(fuse_fx(Chain("Conv2d", True, "functional", "ReLU")).get_submodule("functional"))


def test_the_only_documented_custom_config_is_accepted() -> None:
    model = Chain("Conv2d", False, "none", "ReLU")

    assert fuse_fx(model, {"preserved_attributes": ["add_form"]}).add_form is model.add_form


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"additional_fuser_method_mapping": {}}, "knows only 'preserved_attributes', got .'additional_fuser"),
        ({"preserved_attributes": ["no_such"]}, "names .'no_such'., which Chain does not have"),
    ],
    ids=["unknown key", "unknown attribute"],
)
def test_other_custom_configs_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fuse_fx(Chain("Conv2d", False, "none", "ReLU"), config)


def test_a_model_with_hooks_is_refused() -> None:
    model = Chain("Conv2d", False, "none", "ReLU")
    model.conv.register_forward_hook(lambda module, args, output: None)

    with pytest.raises(TraceError, match="conv has forward hooks"):
        fuse_fx(model)


def test_fused_models_train() -> None:
    fused = fuse_fx(nn.Sequential(Bottleneck(), nn.Flatten()))

    fused(torch.randn(2, 3, 6, 6)).sum().backward()

    assert all(parameter.grad is not None for parameter in fused.parameters())


def test_a_parameter_that_the_forward_uses_itself_keeps_its_module() -> None:
    class Regularised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1)
            self.bn = nn.BatchNorm2d(1)

        def forward(self, x: Tensor) -> Any:
            return self.bn(self.conv(x)), self.conv.weight.abs().sum()

    fused = fuse_fx(Regularised())

    assert fused.fused_modules == {}
    assert [n.reason for n in fused.fusion_report.not_fused] == ["the forward itself uses the parameters of conv"]
    fused(torch.ones(2, 1, 1, 1))

"""What was done to a model: calls counted, groups that could be fused, weights before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bpu_fx_fusion import FloatFunctional, fuse_fx
from bpu_qat_nn import ArgumentError, DeQuantStub, QATMode, QuantStub, convert_fx, qat_mode_scope
from bpu_qat_nn.profiler import check_unfused_operations, compare_weights, get_module_called_count
from bpu_qat_nn.testing import calibrate, prepared
from bpu_qat_nn.testing.classifiers import MLP, ResNet

X = torch.linspace(-1, 1, 48).reshape(1, 3, 4, 4)


class Net(nn.Module):
    """A layer that is called twice, once with and once without activation; a module that never is."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.first, self.bn, self.shared = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)
        self.relu, self.add, self.unused = nn.ReLU(), FloatFunctional(), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.first(self.quant(x)))
        x = self.relu(self.shared(x))
        y: Tensor = self.dequant(self.add.add(self.shared(x), x))
        return y


def test_calls_are_counted_shared_ones_and_none(capsys: pytest.CaptureFixture[str]) -> None:
    counts = get_module_called_count(Net().eval(), X)

    once = dict.fromkeys(("quant", "dequant", "first", "bn", "relu", "add"), 1)
    assert counts == {**once, "shared": 2, "unused": 0}
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert printed[0] == ["name", "called", "times"]
    assert ["shared", "2"] in printed


def test_user_says_what_counts_as_a_whole(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(nn.Sequential(nn.ReLU(), nn.ReLU()), nn.ReLU())
    counts = get_module_called_count(model, X, lambda module: type(module) is nn.Sequential, print_tabulate=False)
    inner = get_module_called_count(model, X, lambda module: module is model[0], print_tabulate=False)

    assert counts == {"": 1}
    assert inner == {"0": 1, "1": 1}
    assert capsys.readouterr().out == ""


def test_groups_that_can_be_fused_and_those_that_cannot_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    groups = check_unfused_operations(Net().eval(), X)

    assert groups[0] == ["first", "bn"]
    assert any("shared" in group for group in groups[1:])
    printed = capsys.readouterr().out
    assert "shared(shared)  Conv2d" in printed
    assert "shared is called 2 times" in printed


def test_fused_model_has_only_the_groups_that_stay_apart() -> None:
    fused = check_unfused_operations(fuse_fx(Net().eval()), X, print_tabulate=False)

    assert ["first", "bn"] not in fused
    assert all("shared" in group for group in fused)
    assert check_unfused_operations(fuse_fx(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())), X) == []


def test_prepared_model_is_refused() -> None:
    with pytest.raises(ArgumentError, match="expected a float model"):
        check_unfused_operations(prepared(Net().eval(), "bayes"), X)


@pytest.mark.parametrize("mode", [QATMode.FuseBN, QATMode.WithBN])
@pytest.mark.parametrize(("net", "shapes"), [(ResNet, ((2, 3, 32, 32),)), (MLP, ((4, 20),))])
def test_weights_lie_within_half_a_step_of_the_folded_float_ones(
    net: type[nn.Module], shapes: Any, mode: QATMode
) -> None:
    with qat_mode_scope(mode):
        model = net().eval()
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                nn.init.uniform_(module.weight, 0.5, 2.0)
        quantized: Any = prepared(model, "bayes")
        calibrate(quantized, shapes)
        compared = compare_weights(model, quantized)
        converted = compare_weights(model, convert_fx(quantized))

    layers = [name for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert len(compared) == len(layers)
    for name, tensors in compared.items():
        scale = quantized.get_submodule(name.removesuffix(".weight")).weight_fake_quant.scale
        assert (tensors["float"] - tensors["quantized"]).abs().max() <= scale.max() * 0.501
        assert torch.equal(tensors["quantized"], converted[name]["quantized"])
    assert min(compared.similarities.values()) > 0.999


def test_damaged_weight_is_the_least_similar_and_the_table_is_written(tmp_path: Path) -> None:
    model = ResNet().eval()
    quantized: Any = prepared(model, "bayes")
    calibrate(quantized, ((2, 3, 32, 32),))
    with torch.no_grad():
        quantized.get_submodule("blocks.2.body.0").weight.view(-1)[::2] = 0.0

    compared = compare_weights(model, quantized, "SQNR", out_dir=str(tmp_path))
    assert min(compared.similarities, key=lambda name: compared.similarities[name]) == "blocks.2.body.0.weight"
    assert (tmp_path / "weight_comparison.txt").read_text() == f"{compared}\n"

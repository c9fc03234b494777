"""Layers along one axis run in two dimensions, with what the user set on the layer that was written."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bpu_qat_nn import DeQuantStub, QuantStub, prepare_qat_fx
from bpu_qat_nn.testing import assert_exact, calibrate
from bpu_qat_nn.testing.stages import QCONFIGS


class Net(nn.Module):
    """A layer along one axis with ReLU, then one in two dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.one, self.relu, self.two = nn.Conv1d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.one(input=self.quant(x)))
        y: Tensor = self.dequant(self.two(x.unsqueeze(2)))
        return y


def test_layer_called_by_keyword_gives_the_same_integers() -> None:
    model = prepare_qat_fx(Net().eval(), {"": QCONFIGS[8]})
    calibrate(model, ((2, 4, 9),))
    assert_exact(model, (torch.randn(2, 4, 9),))


def test_frozen_layer_stays_frozen() -> None:
    net = Net().eval()
    net.one.requires_grad_(False)
    model: Any = prepare_qat_fx(net, {"": QCONFIGS[8]})
    (fused,) = [model.get_submodule(path) for path in ("one", "relu") if hasattr(model.get_submodule(path), "weight")]
    assert not fused.weight.requires_grad
    assert not fused.bias.requires_grad


def types(net: nn.Module, **entries: Any) -> list[str]:
    """Return the types of activations of the layer along one axis and of that in two dimensions."""
    report = prepare_qat_fx(net, {"": QCONFIGS[8], **entries}).prepare_report
    return [str(entry.output) for entry in report.quantized if entry.what in ("ConvReLU2d", "Conv2d")]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(nn.Conv1d, ["qint16", "qint8"]), (nn.Conv2d, ["qint8", "qint16"])],
    ids=["Conv1d", "Conv2d"],
)
def test_module_type_means_the_type_that_was_written(kind: type[nn.Module], expected: list[str]) -> None:
    assert types(Net().eval(), module_type=[(kind, QCONFIGS[16])]) == expected


def test_qconfig_attribute_of_the_layer_holds() -> None:
    net: Any = Net().eval()
    net.one.qconfig = QCONFIGS[16]
    assert types(net) == ["qint16", "qint8"]


def test_hybrid_types_mean_the_type_that_was_written() -> None:
    model = prepare_qat_fx(Net().eval(), {"": QCONFIGS[8]}, hybrid=True, hybrid_dict={"module_type": [nn.Conv1d]})
    assert [entry.reason for entry in model.prepare_report.left] == ["hybrid_dict names the type Conv1d"]
    assert [entry.path for entry in model.prepare_report.quantized if entry.what == "Conv2d"] == ["two"]

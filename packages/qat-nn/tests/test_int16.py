"""The choice of 16-bit activations: measured, within the budget, and accepted by the march."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bpu_qat_nn import ArgumentError, DeQuantStub, QuantStub, prepare_qat_fx
from bpu_qat_nn.passes import choose_int16
from bpu_qat_nn.passes.forward import evaluated
from bpu_qat_nn.testing import assert_exact, calibrate, real_inputs
from bpu_qat_nn.testing.case import Between
from bpu_qconfig import (
    default_qat_8bit_fake_quant_qconfig,
    default_qat_out_8bit_fake_quant_qconfig,
    march_scope,
)

MAP = (2, 3, 8, 8)
QCONFIG: dict[str, Any] = {
    "": default_qat_8bit_fake_quant_qconfig,
    "module_name": [("head", default_qat_out_8bit_fake_quant_qconfig)],
}


class Net(nn.Module):
    """One activation spans a wide range of which the next layer uses a small part: 8 bits are not enough there."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(scale=1 / 32), DeQuantStub()
        self.first, self.wide, self.back = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.pool, self.head = nn.MaxPool2d(2), nn.Conv2d(8, 4, 1)
        with torch.no_grad():
            self.wide.weight[0] *= 500
            self.back.weight[:, 0] = 0.0

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(self.quant(x)))
        y: Tensor = self.dequant(self.head(self.pool(torch.relu(self.back(self.wide(x))))))
        return y


def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def batches() -> list[Tensor]:
    return [real_inputs((MAP,), seed)[0] for seed in range(2)]


def error(qconfig_dict: Any) -> float:
    model = prepare_qat_fx(net(), qconfig_dict)
    calibrate(model, (MAP,))
    (x,) = real_inputs((MAP,), 9)
    assert_exact(model, (x,))
    with evaluated(model, quantizes=True):
        return float((model(x) - net()(x)).square().mean())


def test_most_harmful_activation_is_raised_first_and_the_model_is_better_for_it() -> None:
    choice = choose_int16(net(), QCONFIG, batches(), budget=0.3)

    assert choice.raised[0].path == "wide"
    assert choice.cost <= 0.3
    assert error(choice.qconfig_dict) < 0.1 * error(QCONFIG)


def test_cost_is_the_work_of_what_reads_16_bits() -> None:
    """Multiply-accumulates of 64 positions; ReLU is fused, the pool has 16 positions."""
    work = {"quant": 3 * 64, "first": 27 * 8 * 64, "wide": 64 * 64, "back": 64 * 64, "pool": 8 * 16, "head": 32 * 16}
    choice = choose_int16(net(), QCONFIG, batches(), budget=0.3)

    whole = sum(work.values())
    assert choice.raised[0].cost == pytest.approx(work["back"] / whole, rel=1e-6)


@pytest.mark.parametrize("budget", [0.0, 0.05, 0.2, 0.5, 10.0])
def test_budget_is_kept(budget: float) -> None:
    choice = choose_int16(net(), QCONFIG, batches(), budget=budget)

    assert choice.cost <= budget
    prepared = prepare_qat_fx(net(), choice.qconfig_dict)
    wide = {entry.path for entry in prepared.prepare_report.quantized if str(entry.output) == "qint16"}
    assert {each.path for each in choice.raised} <= wide
    assert all(each.reason for each in choice.left)


def test_what_the_march_refuses_stays_at_8_bits_with_its_reason() -> None:
    """Max pooling takes 8 bits only on Bayes."""
    choice = choose_int16(net(), QCONFIG, batches(), budget=10.0)

    (left,) = (each for each in choice.left if each.path == "back")
    assert "MaxPool2d" in left.reason or "input type qint16" in left.reason
    assert "back" in str(choice)


def test_fixed_scale_is_not_a_candidate() -> None:
    choice = choose_int16(net(), QCONFIG, batches(), budget=10.0)
    assert "quant" not in {each.path for each in (*choice.raised, *choice.left)}


def test_arguments_are_checked() -> None:
    with march_scope("bernoulli2"), pytest.raises(ArgumentError, match="8-bit activations only"):
        choose_int16(net(), QCONFIG, batches())
    with pytest.raises(ArgumentError, match="budget"):
        choose_int16(net(), QCONFIG, batches(), budget=-1)
    with pytest.raises(ArgumentError, match="at least one"):
        choose_int16(net(), QCONFIG, [])


OTHERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "layers along one axis": (nn.Sequential(nn.Conv1d(4, 4, 3), nn.ReLU(), nn.Conv1d(4, 4, 3)), (2, 4, 9)),
    "a composite": (nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 6)), (2, 4, 6)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_choice_looks_at_the_model_that_is_prepared(name: str) -> None:
    body, shape = OTHERS[name]
    with march_scope("bayes"):
        choice = choose_int16(
            Between(body).eval(), {"": default_qat_8bit_fake_quant_qconfig}, real_inputs((shape,), 0), budget=5.0
        )
    assert "quant" in [each.path for each in choice.raised]
    assert not [each for each in (*choice.raised, *choice.left) if "integer form" in each.reason]

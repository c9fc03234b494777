"""The promise under every kind of qconfig: learned scales, all observers, weights per tensor, narrow ranges."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_kernels.march import March
from bpu_qat_nn import DeQuantStub, QuantStub, prepare_qat_fx
from bpu_qat_nn.testing import assert_exact, calibrate, real_inputs, train_steps, validate
from bpu_qconfig import (
    OBSERVERS,
    FakeQuantize,
    FakeQuantState,
    FixedScaleObserver,
    LearnableFakeQuantize,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    QConfig,
    default_qat_8bit_lsq_quant_qconfig,
    get_default_qconfig,
    march_scope,
    set_fake_quantize,
)

SHAPE = (2, 4, 6, 6)


class Net(nn.Module):
    """A residual block, a depthwise and a transposed convolution, tables, concatenation, pooling, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.first, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.depthwise, self.up = nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.ConvTranspose2d(8, 4, 2, 2)
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.quant(x)
        y = F.relu6(self.norm(self.first(x)) + x)
        z = torch.cat([y, F.hardswish(self.depthwise(y))], 1)
        y = F.max_pool2d(self.up(z), 3, 2, 1)
        result: Tensor = self.dequant(self.linear(y.mean((2, 3))))
        return result


QCONFIGS: dict[str, QConfig] = {
    "lsq": default_qat_8bit_lsq_quant_qconfig,
    "pact": get_default_qconfig("pact", "fake_quant"),
    "lsq weights": get_default_qconfig("fake_quant", "lsq"),
    "pact both": get_default_qconfig("pact", "pact"),
    "per-tensor weights": QConfig(
        activation=FakeQuantize.with_args(observer=MovingAverageMinMaxObserver),
        weight=FakeQuantize.with_args(observer=MovingAverageMinMaxObserver),
    ),
    "from -127": QConfig(
        activation=FakeQuantize.with_args(observer=MovingAverageMinMaxObserver, quant_min=-127),
        weight=FakeQuantize.with_args(
            observer=MovingAveragePerChannelMinMaxObserver,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
            quant_min=-127,
        ),
    ),
    **{
        f"observer {name}": get_default_qconfig(activation_observer=name)
        for name in OBSERVERS
        if name not in ("min_max", "fixed_scale")
    },
    "weights mse": get_default_qconfig(weight_observer="mse"),
    "weights percentile": get_default_qconfig(weight_observer="percentile"),
    "fixed scales": get_default_qconfig(activation_observer="fixed_scale", activation_qkwargs={"scale": 0.02}),
    "fixed scales, lsq": get_default_qconfig(
        "lsq", activation_observer="fixed_scale", activation_qkwargs={"scale": 0.02}
    ),
    "in place": get_default_qconfig(activation_qkwargs={"in_place": True}),
    "gradient everywhere": get_default_qconfig(activation_qkwargs={"saturate": False}),
    "frozen": get_default_qconfig(
        activation_qkwargs={"averaging_constant": 0.0}, weight_qkwargs={"averaging_constant": 0.0}
    ),
}  # fmt: skip


@pytest.mark.parametrize("march", [March.BERNOULLI2, March.BAYES], ids=str)
@pytest.mark.parametrize("name", QCONFIGS)
def test_integers_agree_under(name: str, march: March) -> None:
    torch.manual_seed(0)
    with march_scope(march):
        model = prepare_qat_fx(Net().eval(), {"": QCONFIGS[name]})
    calibrate(model, (SHAPE,))
    assert_exact(model, real_inputs((SHAPE,), seed=9))
    train_steps(model, (SHAPE,), lr=1e-3)
    assert_exact(model, real_inputs((SHAPE,), seed=10))


def test_integers_agree_after_the_optimizer_took_learned_scales_below_zero() -> None:
    torch.manual_seed(0)
    model = prepare_qat_fx(Net().eval(), {"": default_qat_8bit_lsq_quant_qconfig})
    calibrate(model, (SHAPE,))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, LearnableFakeQuantize):
                module._parameters["scale"].sub_(1.0)  # type: ignore[union-attr]
    assert_exact(model, real_inputs((SHAPE,), seed=9))


def test_learned_scales_receive_gradients_in_training_and_in_validation() -> None:
    torch.manual_seed(0)
    model = prepare_qat_fx(Net().eval(), {"": default_qat_8bit_lsq_quant_qconfig})
    calibrate(model, (SHAPE,))
    for state in (FakeQuantState.QAT, FakeQuantState.VALIDATION):
        model.train(state is FakeQuantState.QAT)
        set_fake_quantize(model, state)
        model.zero_grad()
        model(*real_inputs((SHAPE,), seed=9)).square().sum().backward()
        scales = {name: p.grad for name, p in model.named_parameters() if name.endswith(".scale")}
        assert len(scales) > 10
        assert [name for name, grad in scales.items() if grad is None or not grad.abs().sum() > 0] == []


def test_symmetric_and_fixed_scales_stay_so_while_others_are_learned() -> None:
    fixed = get_default_qconfig("lsq", activation_qkwargs={"observer": FixedScaleObserver, "scale": 1 / 128})
    model = prepare_qat_fx(Net().eval(), {"": default_qat_8bit_lsq_quant_qconfig, "module_name": [("quant", fixed)]})
    calibrate(model, (SHAPE,))
    train_steps(model, (SHAPE,), steps=3, lr=1e-2)
    validate(model)
    scales = {path: module for path, module in model.named_modules() if isinstance(module, FakeQuantize)}
    assert float(scales["quant.activation_post_process"].scale) == 1 / 128
    assert all(not module.zero_point.any() for module in scales.values())

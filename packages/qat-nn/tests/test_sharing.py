"""Modules and parameters that hang at several places, or are called several times: one set of parameters throughout."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_fx_fusion import FloatFunctional
from bpu_qat_nn import DeQuantStub, PrepareError, QuantStub, convert, convert_fx, prepare_qat
from bpu_qat_nn.testing import assert_exact, calibrate, differing, prepared, real_inputs, train_steps
from bpu_qat_nn.testing.stages import QCONFIGS
from bpu_qconfig import FakeQuantState, set_fake_quantize, set_march

SHAPE = (2, 4, 6, 6)
(INPUT,) = real_inputs((SHAPE,), seed=4)


class Stubs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()

    def body(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dequant(self.body(self.quant(x)))
        return y


class CalledTwice(Stubs):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def body(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(self.conv(x) * 0.3)
        return y


class TwoPaths(CalledTwice):
    def __init__(self) -> None:
        super().__init__()
        self.again = self.conv

    def body(self, x: Tensor) -> Tensor:
        y: Tensor = self.again(F.relu(self.conv(x)) + x)
        return y


class TiedWeights(CalledTwice):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(4, 4, 3, padding=1)
        self.other.weight = self.conv.weight

    def body(self, x: Tensor) -> Tensor:
        y: Tensor = self.other(F.relu(self.conv(x)))
        return y


class FunctionalWeight(Stubs):
    def __init__(self) -> None:
        super().__init__()
        self.holder = nn.ParameterDict({"w": nn.Parameter(torch.randn(4, 4, 1, 1))})
        self.scale_of = nn.Parameter(torch.randn(4))

    def body(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.holder["w"], self.scale_of)


@pytest.mark.parametrize("make", [CalledTwice, TwoPaths, TiedWeights, FunctionalWeight])
def test_shared_parameters_agree_and_are_trained_as_one(make: type[nn.Module]) -> None:
    torch.manual_seed(0)
    net = make().eval()
    model = prepared(net, "bayes")
    calibrate(model, (SHAPE,))
    assert_exact(model, (INPUT,))
    train_steps(model, (SHAPE,), lr=0.05)
    converted = assert_exact(model, (INPUT,))
    assert len(list(model.parameters())) == len(list(net.parameters()))
    assert not any(parameter.requires_grad for parameter in converted.parameters())


def test_one_module_under_two_paths_stays_one_module() -> None:
    model: Any = prepared(TwoPaths().eval(), "bayes")
    calibrate(model, (SHAPE,))
    assert model.conv is model.again
    converted: Any = convert_fx(model)
    assert converted.conv is converted.again


class OneActivation(Stubs):
    """As YOLO: all layers hold the same activation."""

    activation = nn.SiLU()

    def __init__(self, calls: int = 1) -> None:
        super().__init__()
        self.calls = calls
        self.layers = nn.ModuleList(nn.Sequential(nn.Conv2d(4, 4, 1), self.activation) for _ in range(2))
        for weight in (layer.get_parameter("0.weight") for layer in self.layers):
            nn.init.eye_(weight.data.reshape(4, 4))

    def body(self, x: Tensor) -> Tensor:
        for _ in range(self.calls):
            x = self.layers[0](x * 8) + self.layers[1](x)
        return x


def test_an_activation_that_layers_hold_in_common_has_a_scale_for_each() -> None:
    both: Any = ((prepared(OneActivation().eval(), "bayes"), convert_fx), (_eager(), convert))
    for model, to_integers in both:
        calibrate(model, (SHAPE,))
        scales = [model.get_submodule(f"layers.{n}.1.activation_post_process").scale for n in range(2)]
        assert scales[0] > 4 * scales[1]
        assert differing(to_integers(model)(INPUT), model(INPUT)) == 0


def _eager() -> nn.Module:
    set_march("bayes")
    model: Any = EagerActivation().eval()
    model.qconfig = QCONFIGS[8]
    return prepare_qat(model)


class EagerActivation(OneActivation):
    def __init__(self) -> None:
        super().__init__()
        self.times, self.plus = FloatFunctional(), FloatFunctional()

    def body(self, x: Tensor) -> Tensor:
        return self.plus.add(self.layers[0](self.times.mul_scalar(x, 8.0)), self.layers[1](x))


def test_a_scale_for_several_calls_is_told() -> None:
    once, twice = (prepared(OneActivation(calls).eval(), "bayes").prepare_report for calls in (1, 2))
    assert once.shared == ()
    assert [(each.path, each.calls) for each in twice.shared] == [("layers.0.1", 2), ("layers.1.1", 2)]
    assert "layers.0.1 (SiLU) has one scale for 2 calls" in str(twice)


def test_tied_parameters_stay_tied_and_sum_their_gradients() -> None:
    torch.manual_seed(0)
    tied_net, separate_net = TiedWeights().eval(), TiedWeights().eval()
    separate_net.load_state_dict(tied_net.state_dict())
    separate_net.other.weight = nn.Parameter(tied_net.conv.weight.detach().clone())
    tied, separate = (prepared(net, "bayes") for net in (tied_net, separate_net))
    for model in (tied, separate):
        calibrate(model, (SHAPE,))
        model.train()
        set_fake_quantize(model, FakeQuantState.QAT)
        model(INPUT).square().sum().backward()
    weights: Any = tied.conv.weight, separate.conv.weight, separate.other.weight
    assert tied.other.weight is weights[0]
    assert weights[0] is not tied_net.conv.weight
    assert torch.allclose(weights[0].grad, weights[1].grad + weights[2].grad, rtol=1e-4, atol=1e-5)


def test_parameter_used_by_a_function_and_by_a_layer_is_one_in_the_prepared_model() -> None:
    model: Any = prepared(FunctionalWeight().eval(), "bayes")
    assert model.holder["w"] is model._generated_conv2d_0.weight
    assert model.scale_of is model._generated_conv2d_0.bias


def test_parameters_that_stay_frozen_in_the_float_model_stay_so() -> None:
    net = CalledTwice()
    net.conv.weight.requires_grad_(False)
    model: Any = prepared(net, "bayes")
    assert not model.conv.weight.requires_grad
    assert model.conv.bias.requires_grad


def test_one_module_with_two_qconfigs_is_refused() -> None:
    names = [("conv", QCONFIGS[8]), ("again", QCONFIGS[16])]
    with pytest.raises(
        PrepareError, match=r"again \(Conv2d\): it is the same module as conv, but their qconfigs differ"
    ):
        prepared(TwoConfigs().eval(), "bayes", module_name=names)


class TwoConfigs(CalledTwice):
    def __init__(self) -> None:
        super().__init__()
        self.again = self.conv

    def body(self, x: Tensor) -> Tensor:
        y: Tensor = self.again(self.conv(x))
        return y


def test_one_module_on_real_and_quantized_tensors_is_refused() -> None:
    class Both(Stubs):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.Sigmoid()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.dequant(self.act(self.quant(self.act(x))))
            return y

    with pytest.raises(PrepareError, match=r"act \(Sigmoid\): it is called on quantized tensors and on real ones"):
        prepared(Both(), "bayes")


def test_one_activation_used_everywhere_agrees() -> None:
    class Reused(Stubs):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
            self.relu, self.silu = nn.ReLU(inplace=True), nn.SiLU(inplace=True)

        def body(self, x: Tensor) -> Tensor:
            y = self.relu(self.a(x))
            z = self.silu(y * 1.0)
            w: Tensor = self.silu(self.relu(self.b(z)) + y)
            return w

    model = prepared(Reused().eval(), "bayes")
    calibrate(model, (SHAPE,))
    train_steps(model, (SHAPE,))
    assert_exact(model, (INPUT,))

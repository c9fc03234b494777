"""Stubs and FloatFunctionals of torch and of the plugin in one model, as users mix them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from horizon_plugin_pytorch import qconfig, set_march
from horizon_plugin_pytorch import quantization as horizon_quantization
from horizon_plugin_pytorch.nn import qat, quantized
from horizon_plugin_pytorch.quantization import prepare_qat_fx
from horizon_plugin_pytorch.quantization.fx.graph_module import ObservedGraphModule, QuantizedGraphModule

torch_quantization: Any = torch.quantization
TorchFunctional: Any = torch.nn.quantized.FloatFunctional

METHODS: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "add": lambda f, x, y: f.add(x, y),
    "add_scalar": lambda f, x, y: f.add_scalar(x, 0.3),
    "mul": lambda f, x, y: f.mul(x, y),
    "mul_scalar": lambda f, x, y: f.mul_scalar(x, -1.7),
    "cat": lambda f, x, y: f.cat([x, y], dim=1),
    "add_relu": lambda f, x, y: f.add_relu(x, y),
}
"""What torch's FloatFunctional has, except matmul."""

OWN_METHODS: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "sub": lambda f, x, y: f.sub(x, y),
    "mean": lambda f, x, y: f.mean(x, dim=(2, 3), keepdim=True),
    "sum": lambda f, x, y: f.sum(x, [2, 3], True),
}
"""What the plugin's has besides, on every march."""

CASES = [
    *[pytest.param(TorchFunctional, call, id=f"torch-{name}") for name, call in METHODS.items()],
    *[pytest.param(quantized.FloatFunctional, call, id=name) for name, call in {**METHODS, **OWN_METHODS}.items()],
]


class Arithmetic(nn.Module):
    """A convolution and its input, joined by one method; torch's QuantStub, the plugin's DeQuantStub."""

    def __init__(self, functional: nn.Module, call: Callable[[Any, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.quant, self.dequant = torch_quantization.QuantStub(), horizon_quantization.DeQuantStub()
        self.conv, self.sigmoid, self.functional = nn.Conv2d(4, 4, 1), nn.Sigmoid(), functional
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        x = self.quant(x)
        y: Tensor = self.dequant(self.call(self.functional, self.sigmoid(self.conv(x)), x))
        return y


def calibrated(model: nn.Module, x: Tensor) -> ObservedGraphModule:
    prepared = prepare_qat_fx(model.eval(), {"": qconfig.default_qat_8bit_fake_quant_qconfig})
    prepared(x)
    return prepared


@pytest.mark.parametrize("march", ["bernoulli2", "bayes"])
@pytest.mark.parametrize(("functional", "call"), CASES)
def test_every_method_has_one_arithmetic(
    functional: type[nn.Module],
    call: Callable[[Any, Tensor, Tensor], Tensor],
    march: str,
    assert_one_arithmetic: Callable[..., QuantizedGraphModule],
) -> None:
    set_march(march)
    x = torch.randn(2, 4, 6, 6)
    model = Arithmetic(functional(), call)

    converted = assert_one_arithmetic(calibrated(model, x), x)

    with torch.no_grad():
        expected = model(x)
    assert (converted(x) - expected).abs().mean() < 0.05 * expected.abs().mean()


class Unit(nn.Module):
    """A functional of torch's in a module of its own, which a model may hold several times or call twice."""

    def __init__(self) -> None:
        super().__init__()
        self.join, self.relu = TorchFunctional(), nn.ReLU()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        z: Tensor = self.relu(self.join.add(x, y))
        return z


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = horizon_quantization.QuantStub(), torch_quantization.DeQuantStub()
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.units = nn.ModuleList([Unit(), Unit()])
        self.mixed = nn.ModuleDict({"torch": TorchFunctional(), "own": quantized.FloatFunctional()})

    def forward(self, x: Tensor) -> Tensor:
        x = self.quant(x)
        y = self.units[0](self.convs[0](x), x)
        y = self.units[1](self.convs[1](y), y)
        y = self.units[1](self.convs[2](y), y)
        mixed: Any = self.mixed
        joined = mixed["own"].cat([mixed["torch"].mul(x, y), y], dim=1)
        result: Tensor = self.dequant(joined)
        return result


@pytest.mark.parametrize("march", ["bernoulli2", "bayes"])
def test_nested_and_shared_functionals_have_one_arithmetic(
    march: str, assert_one_arithmetic: Callable[..., QuantizedGraphModule]
) -> None:
    set_march(march)
    x = torch.randn(2, 4, 6, 6)
    prepared = calibrated(Nested(), x)

    converted = assert_one_arithmetic(prepared, x)

    assert isinstance(prepared.units[0].join, qat.ConvAddReLU2d)
    assert isinstance(prepared.units[1].join, qat.FloatFunctional)  # called twice, so no convolution can own it
    assert isinstance(converted.mixed["torch"], quantized.QFunctional)


def test_torch_stub_takes_its_scale_from_statistics() -> None:
    x = torch.randn(2, 4, 6, 6)

    prepared = calibrated(Arithmetic(TorchFunctional(), METHODS["add"]), x)

    assert isinstance(prepared.quant, qat.QuantStub)
    assert float(prepared.quant.activation_post_process.scale) == pytest.approx(2 * float(x.abs().max()) / 255)

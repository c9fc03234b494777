"""Users find the modules of a prepared and of a converted model by their documented classes."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from horizon_plugin_pytorch import qconfig
from horizon_plugin_pytorch.nn import Interpolate, qat, quantized
from horizon_plugin_pytorch.quantization import DeQuantStub, QuantStub, convert_fx, prepare_qat_fx
from horizon_plugin_pytorch.quantization.fx.graph_module import ObservedGraphModule


class Model(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.quant, self.body, self.dequant = QuantStub(), body, DeQuantStub()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.dequant(self.body(self.quant(x)))
        return result


class Residual(nn.Module):
    def __init__(self, relu: Callable[[Tensor], Tensor] | None) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(4, 4, 1), relu

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x) + x
        return y if self.relu is None else self.relu(y)


class Sum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + F.relu(x)


def conv_relu(relu: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 4, 1), relu)


CASES: dict[str, tuple[Callable[[], nn.Module], str, type[nn.Module], type[nn.Module]]] = {
    "stub": (nn.ReLU, "quant", qat.QuantStub, quantized.Quantize),
    "dequant": (nn.ReLU, "dequant", qat.DeQuantStub, quantized.DeQuantize),
    "conv": (lambda: nn.Conv2d(4, 4, 1), "body", qat.Conv2d, quantized.Conv2d),
    "conv_relu": (lambda: conv_relu(nn.ReLU()), "body.0", qat.ConvReLU2d, quantized.ConvReLU2d),
    "conv_relu6": (lambda: conv_relu(nn.ReLU6()), "body.0", qat.ConvReLU62d, quantized.ConvReLU62d),
    "conv_add": (lambda: Residual(None), "body_generated_add_0", qat.ConvAdd2d, quantized.ConvAdd2d),
    "conv_add_relu": (lambda: Residual(F.relu), "body_generated_add_0", qat.ConvAddReLU2d, quantized.ConvAddReLU2d),
    "conv_add_relu6": (lambda: Residual(F.relu6), "body_generated_add_0", qat.ConvAddReLU62d, quantized.ConvAddReLU62d),
    "batch_norm": (lambda: nn.BatchNorm2d(4), "body", qat.BatchNorm2d, quantized.Conv2d),
    "add": (Sum, "body_generated_add_0", qat.FloatFunctional, quantized.QFunctional),
    "relu": (nn.ReLU, "body", qat.ReLU, quantized.ReLU),
    "sigmoid": (nn.Sigmoid, "body", qat.SegmentLUT, quantized.SegmentLUT),
    "avg_pool": (lambda: nn.AvgPool2d(2), "body", qat.AvgPool2d, quantized.AvgPool2d),
    "adaptive_avg_pool": (lambda: nn.AdaptiveAvgPool2d(1), "body", qat.AdaptiveAvgPool2d, quantized.AdaptiveAvgPool2d),
    "interpolate": (lambda: Interpolate(scale_factor=2), "body", qat.Interpolate, quantized.Interpolate),
    "upsample": (lambda: nn.Upsample(scale_factor=2), "body", qat.Upsample, quantized.Upsample),
    "upsample_bilinear": (
        lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
        "body",
        qat.UpsamplingBilinear2d,
        quantized.UpsamplingBilinear2d,
    ),
}
"""Name -> float module, where it ends up in the model, its class while it trains, its class on integers."""


def prepare(name: str) -> ObservedGraphModule:
    model = prepare_qat_fx(Model(CASES[name][0]()).eval(), {"": qconfig.default_qat_8bit_fake_quant_qconfig})
    model(torch.randn(2, 4, 8, 8))
    return model


@pytest.mark.parametrize("name", CASES)
def test_module_has_its_documented_class_in_each_stage(name: str) -> None:
    _, path, trained, converted = CASES[name]
    model = prepare(name)

    assert type(model.get_submodule(path)) is trained
    assert type(convert_fx(model).get_submodule(path)) is converted


@pytest.mark.parametrize("name", CASES)
def test_model_survives_pickling_in_each_stage(name: str) -> None:
    x = torch.randn(2, 4, 8, 8)
    model = prepare(name).eval()
    converted = convert_fx(model)
    expected = converted(x)

    assert torch.equal(pickle.loads(pickle.dumps(converted))(x), expected)
    assert torch.equal(convert_fx(pickle.loads(pickle.dumps(model)))(x), expected)

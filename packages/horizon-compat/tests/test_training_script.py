"""A user's script from start to end: calibrate, train, validate, convert, as the user guide orders the calls."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.quantization import DeQuantStub  # type: ignore[attr-defined]

import horizon_plugin_pytorch as horizon
from horizon_plugin_pytorch.quantization import (
    FakeQuantize,
    FakeQuantState,
    QuantStub,
    convert_fx,
    load_observer_params,
    prepare_qat_fx,
    set_fake_quantize,
)
from horizon_plugin_pytorch.quantization.fx.graph_module import ObservedGraphModule, QuantizedGraphModule

MARCHES = ["bernoulli2", "bayes", "bayes-e"]


def conv_bn_relu(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Block(nn.Module):
    """A residual block with torch's own FloatFunctional, as models written for eager quantization have."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_bn_relu(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))
        self.add = torch.nn.quantized.FloatFunctional()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(self.add.add(self.second(self.first(x)), x))
        return y


class Classifier(nn.Module):
    """Horizon's QuantStub with the fixed scale of a camera input, torch's DeQuantStub."""

    def __init__(self) -> None:
        super().__init__()
        self.quant = QuantStub(scale=1 / 128)
        self.stem = conv_bn_relu(3, 8, 2)
        self.block = Block(8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Conv2d(8, 3, 1)
        self.dequant = DeQuantStub()

    def forward(self, x: Tensor) -> Tensor:
        x = self.classifier(self.pool(self.block(self.stem(self.quant(x)))))
        y: Tensor = self.dequant(x.flatten(1))
        return y


def batches(count: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images -1..1, [24, 3, 16, 16], whose class is the channel that is brightest in one corner."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        label = torch.randint(0, 3, (24,), generator=generator)
        images = torch.rand(24, 3, 16, 16, generator=generator) - 0.5
        images[torch.arange(24), label, 4:12, 4:12] += 0.5
        yield images.clamp(-1, 1), label


def train(model: nn.Module, count: int, lr: float) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    for images, label in batches(count, seed=1):
        optimizer.zero_grad()
        loss: Any = nn.functional.cross_entropy(model(images), label)
        loss.backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module) -> float:
    hits = [(model(images).argmax(1) == label).float().mean() for images, label in batches(5, seed=2)]
    return float(torch.stack(hits).mean())


def qconfig_dict(stage: str) -> dict[str, object]:
    """Return the qconfigs of a stage: percentile observers for calibration, moving averages for training."""
    default = getattr(horizon.qconfig, f"default_{stage}_8bit_fake_quant_qconfig")
    high_precision = getattr(horizon.qconfig, f"default_{stage}_out_8bit_fake_quant_qconfig")
    return {"": default, "module_name": {"classifier": high_precision}}


@pytest.fixture
def float_model() -> nn.Module:
    torch.manual_seed(0)
    model = Classifier().train()
    train(model, 25, lr=0.05)
    return model


def calibrated(float_model: nn.Module) -> ObservedGraphModule:
    model = prepare_qat_fx(copy.deepcopy(float_model), qconfig_dict("calib"))
    model.eval()
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    with torch.no_grad():
        for images, _ in batches(10, seed=3):
            model(images)
    return model


@pytest.mark.parametrize("march", MARCHES)
def test_accuracy_survives_every_stage(
    march: str, float_model: nn.Module, tmp_path: Path, assert_one_arithmetic: Callable[..., QuantizedGraphModule]
) -> None:
    horizon.set_march(march)
    calib_model = calibrated(float_model)
    calib_model.eval()
    set_fake_quantize(calib_model, FakeQuantState.VALIDATION)
    torch.save(calib_model.state_dict(), tmp_path / "calibration.pt")

    qat_model = prepare_qat_fx(copy.deepcopy(float_model), qconfig_dict("qat"))
    qat_model.load_state_dict(torch.load(tmp_path / "calibration.pt"))
    qat_model.train()
    set_fake_quantize(qat_model, FakeQuantState.QAT)
    train(qat_model, 10, lr=1e-3)
    qat_model.eval()
    set_fake_quantize(qat_model, FakeQuantState.VALIDATION)
    quantized_model = convert_fx(qat_model)

    reached = accuracy(float_model.eval())
    assert reached > 0.95
    assert accuracy(calib_model) > reached - 0.03
    assert accuracy(qat_model) > reached - 0.03
    assert accuracy(quantized_model) == accuracy(qat_model)
    assert_one_arithmetic(qat_model, next(batches(1, seed=4))[0])


def test_state_dict_keys_of_calibration_and_training_are_equal(float_model: nn.Module) -> None:
    keys = [list(prepare_qat_fx(float_model, qconfig_dict(stage)).state_dict()) for stage in ("calib", "qat")]

    assert keys[0] == keys[1]


def test_loaded_calibration_validates_to_the_same_integers(float_model: nn.Module) -> None:
    calib_model = calibrated(float_model)
    by_state_dict = prepare_qat_fx(copy.deepcopy(float_model), qconfig_dict("qat"))
    by_state_dict.load_state_dict(calib_model.state_dict())
    by_parameters = prepare_qat_fx(copy.deepcopy(float_model), qconfig_dict("qat"))
    load_observer_params(calib_model, by_parameters)

    images, _ = next(batches(1, seed=5))
    outputs = []
    for model in (calib_model, by_state_dict, by_parameters):
        model.eval()
        set_fake_quantize(model, FakeQuantState.VALIDATION)
        outputs.append(model(images))
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def test_training_resumes_from_a_checkpoint_as_if_never_interrupted(float_model: nn.Module, tmp_path: Path) -> None:
    def start() -> ObservedGraphModule:
        model = prepare_qat_fx(copy.deepcopy(float_model), qconfig_dict("qat"))
        model.train()
        set_fake_quantize(model, FakeQuantState.QAT)
        return model

    model = start()
    train(model, 3, lr=1e-3)
    torch.save(model.state_dict(), tmp_path / "checkpoint.pt")
    resumed = start()
    resumed.load_state_dict(torch.load(tmp_path / "checkpoint.pt"))
    for each in (model, resumed):
        train(each, 3, lr=1e-3)

    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), resumed.state_dict().values(), strict=True)
    )


def test_calibration_leaves_the_model_in_float(float_model: nn.Module) -> None:
    images, _ = next(batches(1, seed=6))
    model = prepare_qat_fx(copy.deepcopy(float_model).eval(), qconfig_dict("calib"))
    set_fake_quantize(model, FakeQuantState.CALIBRATION)

    torch.testing.assert_close(model(images), float_model.eval()(images), rtol=1e-4, atol=1e-4)


def test_input_keeps_the_fixed_scale_in_every_stage(float_model: nn.Module) -> None:
    model = calibrated(float_model)

    assert float(model.quant.activation_post_process.scale) == 1 / 128
    assert float(convert_fx(model).quant.scale) == 1 / 128


def test_train_and_eval_change_no_state_of_the_fake_quantizers(float_model: nn.Module) -> None:
    model = calibrated(float_model)

    def states() -> list[tuple[bool, bool]]:
        fakes = [module for module in model.modules() if isinstance(module, FakeQuantize)]
        return [(bool(fake.fake_quant_enabled), bool(fake.observer_enabled)) for fake in fakes]

    before = states()
    model.train()
    model.eval()
    assert states() == before == [(False, True)] * len(before)


def test_order_of_calls_that_the_guide_warns_of_is_warned_of(float_model: nn.Module) -> None:
    model = prepare_qat_fx(float_model, qconfig_dict("qat"))
    model.eval()

    with pytest.warns(UserWarning, match=r"QAT was set on a model in eval mode; call model\.train\(\)"):
        set_fake_quantize(model, FakeQuantState.QAT)


def test_float_model_computes_as_before_after_all_stages(float_model: nn.Module) -> None:
    images, _ = next(batches(1, seed=7))
    float_model.eval()
    expected = float_model(images)

    model = prepare_qat_fx(float_model, qconfig_dict("qat"))
    model.train()
    set_fake_quantize(model, FakeQuantState.QAT)
    train(model, 2, lr=1e-2)
    convert_fx(model)

    assert torch.equal(float_model(images), expected)


class WithAuxiliary(Classifier):
    """A classifier with a float tail, and with a head and a loss that the traced forward does not call."""

    def __init__(self) -> None:
        super().__init__()
        self.tail = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
        self.auxiliary = nn.Linear(8, 3)
        self.loss = nn.CrossEntropyLoss()
        for module in (self.tail, self.auxiliary, self.loss):
            module.qconfig = None  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.tail(super().forward(x))
        return y


def test_converting_between_epochs_leaves_the_trained_and_the_float_model_as_they_were() -> None:
    float_model = WithAuxiliary()
    model = prepare_qat_fx(float_model, qconfig_dict("qat"))
    model.train()
    set_fake_quantize(model, FakeQuantState.QAT)
    model(next(batches(1, seed=8))[0])

    def state(of: nn.Module) -> list[object]:
        flags = [(path, module.training, hasattr(module, "qconfig")) for path, module in of.named_modules()]
        return [flags, list(of.state_dict())]

    before = state(model), state(float_model)
    convert_fx(model)

    assert (state(model), state(float_model)) == before


def test_autocast_changes_no_integer(float_model: nn.Module) -> None:
    images, _ = next(batches(1, seed=9))
    model = calibrated(float_model).eval()
    set_fake_quantize(model, FakeQuantState.VALIDATION)
    converted = convert_fx(model)

    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        outputs = model(images), converted(images)

    expected = converted(images)
    assert all(torch.equal(output.float(), expected) for output in outputs)

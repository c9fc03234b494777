"""Accuracy passes: each does what it says of the error or of the float function, and the promise still holds."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bpu_kernels.march import March
from bpu_qat_nn import ArgumentError, DeQuantStub, ObservedGraphModule, QATMode, QuantStub, qat_mode_scope
from bpu_qat_nn.passes import correct_bias, equalize, reestimate_batch_norm, round_weights
from bpu_qat_nn.passes.forward import evaluated
from bpu_qat_nn.testing import NETS, assert_exact, calibrate, prepared, real_inputs, train_steps
from bpu_qconfig import FakeQuantState, march_scope, set_fake_quantize

MAP = (4, 3, 12, 12)


class Net(nn.Module):
    """Layers with ReLU, ReLU6, a depthwise one, pooling, a residual and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.expand = nn.Sequential(nn.Conv2d(8, 16, 1), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU6())
        self.project, self.grouped = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.pool, self.hidden, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(self.quant(x))
        x = self.grouped(self.project(self.depthwise(self.expand(x)))) + x
        y: Tensor = self.dequant(self.head(torch.relu(self.hidden(self.pool(x).flatten(1)))))
        return y


def net() -> Net:
    """Return a net whose channels differ widely in range."""
    torch.manual_seed(0)
    model = Net()
    with torch.no_grad():
        for path in ("stem.0", "expand.0", "project", "hidden"):
            weight: Any = model.get_submodule(path).weight
            weight.mul_(torch.exp(torch.randn(weight.shape[0]) * 1.5).reshape(-1, *(1,) * (weight.dim() - 1)))
    return model.eval()


def batches(count: int = 3) -> list[Tensor]:
    return [real_inputs((MAP,), seed)[0] for seed in range(count)]


def freshly_prepared(march: March | str = March.BAYES) -> ObservedGraphModule:
    return prepared(net(), march)


def calibrated(march: March | str = March.BAYES) -> ObservedGraphModule:
    model = freshly_prepared(march)
    calibrate(model, (MAP,))
    return model


def float_output(model: nn.Module, x: Tensor) -> Tensor:
    with evaluated(model, quantizes=False):
        y: Tensor = model(x)
    return y


def error(model: nn.Module, x: Tensor) -> float:
    """Return the mean square error of the quantized model against the float one."""
    with evaluated(model, quantizes=True):
        return float((model(x) - net()(x)).square().mean())


PASSES: dict[str, Callable[[ObservedGraphModule], Any]] = {
    "equalize": lambda model: equalize(model, batches()),
    "round_weights": lambda model: round_weights(model, batches()),
    "correct_bias": lambda model: correct_bias(model, batches()),
}


@pytest.mark.parametrize("march", list(March))
@pytest.mark.parametrize("name", PASSES)
def test_model_is_exact_after_a_pass(name: str, march: March) -> None:
    with march_scope(march):
        model = freshly_prepared(march)
        if name == "equalize":
            PASSES[name](model)
        calibrate(model, (MAP,))
        if name != "equalize":
            PASSES[name](model)
        assert_exact(model, real_inputs((MAP,), 9))
        train_steps(model, (MAP,))
        assert_exact(model, real_inputs((MAP,), 9))


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "unet", "mlp"])
def test_nets_are_exact_after_all_passes(name: str) -> None:
    case = NETS[name]
    model = prepared(case.model(), March.BAYES)
    data = [real_inputs(case.shapes, seed) for seed in range(2)]
    with march_scope("bayes"):
        equalize(model, data)
        calibrate(model, case.shapes)
        correct_bias(model, data)
        round_weights(model, data)
        assert_exact(model, real_inputs(case.shapes, 9))


def test_equalization_keeps_the_float_function_and_brings_channels_together() -> None:
    model, (x, *_) = freshly_prepared(), batches()
    expected = net()(x)
    pairs = equalize(model, batches())

    torch.testing.assert_close(float_output(model, x), expected, rtol=1e-4, atol=1e-4)
    assert [(pair.first, pair.second) for pair in pairs] == [
        ("expand.0", "depthwise.0"),  # the stem is read by the residual too, and ReLU6 keeps its bound
        ("project", "_generated_add_0"),  # where grouped was fused
        ("hidden", "head"),
    ]
    assert pairs[0].before > 3
    assert pairs[0].after == pytest.approx(1.0, rel=1e-3)  # before a depthwise layer the activation alone decides


def test_equalized_activation_has_the_ranges_of_the_weights_that_read_it() -> None:
    model, seen = freshly_prepared(), list[Tensor]()
    equalize(model, batches())
    head: Any = model.get_submodule("head")
    head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].dequantize().abs()))
    with evaluated(model, quantizes=False):
        for x in batches():
            model(x)

    activation, weights = torch.cat(seen).amax(0), head.weight.detach().abs().amax(0)
    alive = activation > 0
    ratio = (activation / weights)[alive]
    torch.testing.assert_close(ratio / ratio.mean(), torch.ones_like(ratio), rtol=1e-3, atol=0.0)


def test_equalization_lowers_the_error_of_the_quantized_model() -> None:
    (x,) = real_inputs((MAP,), 9)
    plain, equalized = calibrated(), freshly_prepared()
    equalize(equalized, batches())
    calibrate(equalized, (MAP,))

    assert error(equalized, x) < 0.7 * error(plain, x)


def test_equalization_after_calibration_is_refused() -> None:
    with pytest.raises(ArgumentError, match="is calibrated"):
        equalize(calibrated(), batches())
    with pytest.raises(ArgumentError, match="prepare_qat_fx returned"):
        equalize(net(), batches())  # type: ignore[arg-type]


def test_bias_takes_back_the_mean_error_of_rounded_weights() -> None:
    model, (x,) = calibrated(), batches(1)
    inputs: dict[str, Tensor] = {}
    layer: Any = model.get_submodule("hidden") if hasattr(model, "hidden") else None
    layer = layer if hasattr(layer, "weight_fake_quant") else model.get_submodule("project")
    before = layer.bias.detach().clone()
    layer.register_forward_pre_hook(lambda module, given: inputs.update(x=given[0].dequantize()))
    weight = layer.weight.detach().clone()
    rounded = layer.weight_fake_quant.quantize(weight) * layer.weight_fake_quant.scale.reshape(
        -1, *(1,) * (weight.dim() - 1)
    )
    corrected = correct_bias(model, [x])

    shift = layer.linear_map(inputs["x"], rounded.detach() - weight, None)
    axes = [axis for axis in range(shift.dim()) if axis != layer.channel_axis(shift.dim())]
    torch.testing.assert_close(layer.bias, before - shift.mean(axes), rtol=1e-4, atol=1e-7)
    assert {entry.path for entry in corrected} == {
        path for path, module in model.named_modules() if hasattr(module, "weight_fake_quant")
    }


def test_rounded_weights_are_neighbouring_steps_and_none_alone_could_be_better() -> None:
    """Against all choices of a layer of three taps: as good as the best of those one flip away."""
    torch.manual_seed(1)
    body = nn.Sequential(QuantStub(), nn.Linear(3, 6), DeQuantStub())
    model = prepared(body, March.BAYES)
    data = [torch.randn(50, 3) @ torch.randn(3, 3) for _ in range(2)]
    set_fake_quantize(model.eval(), FakeQuantState.CALIBRATION)
    for batch in data:
        model(batch)
    set_fake_quantize(model, FakeQuantState.VALIDATION)
    layer: Any = model.get_submodule("1")
    weight, scale = layer.weight.detach().clone(), layer.weight_fake_quant.scale.reshape(-1, 1)
    bias = layer.bias.detach().clone()
    seen: list[Tensor] = []
    model.get_submodule("0").register_forward_hook(lambda module, inputs, y: seen.append(y.dequantize()))
    (entry,) = round_weights(model, data)

    x = torch.cat(seen).double()
    second = x.T @ x / len(x)
    mean = x.mean(0)
    moments = second - mean[:, None] * mean + 0.01 * second.diagonal().mean() * torch.eye(3)
    low = (weight / scale).floor()
    chosen = (layer.weight.detach() / scale).round()
    assert torch.equal((chosen == low) | (chosen == low + 1), torch.ones_like(low, dtype=torch.bool))

    def form(steps: Tensor) -> Tensor:
        wrong = ((steps * scale) - weight).double()
        total: Tensor = ((wrong @ moments) * wrong).sum(1)
        return total

    corners = [(low + torch.tensor(corner)).clamp(-128, 127) for corner in itertools.product((0.0, 1.0), repeat=3)]
    best = torch.stack([form(corner) for corner in corners]).min(0).values
    nearest = form((weight / scale).round().clamp(-128, 127))
    assert bool((form(chosen) <= nearest + 1e-12).all())
    for tap in range(3):
        flipped = chosen.clone()
        flipped[:, tap] = (2 * low[:, tap] + 1 - chosen[:, tap]).clamp(-128, 127)
        assert bool((form(chosen) <= form(flipped) + 1e-9).all())
    assert float(form(chosen).sum()) <= 1.5 * float(best.sum())
    shift = ((chosen * scale - weight).double() @ mean).float()
    torch.testing.assert_close(layer.bias, bias - shift, rtol=1e-4, atol=1e-6)
    assert entry.error == pytest.approx(float(form(chosen).sum() / nearest.sum()), rel=1e-3)


def test_rounding_lowers_the_error_and_keeps_scales() -> None:
    (x,) = real_inputs((MAP,), 9)
    plain, rounded = calibrated(), calibrated()
    entries = round_weights(rounded, batches())

    assert all(entry.error <= 1.0 for entry in entries)
    assert sum(entry.error < 0.9 for entry in entries) >= 3
    for path, module in plain.named_modules():
        if hasattr(module, "weight_fake_quant"):
            other: Any = rounded.get_submodule(path)
            assert torch.equal(module.weight_fake_quant.scale, other.weight_fake_quant.scale)
    assert error(rounded, x) < error(plain, x) * 1.05


def test_layer_that_runs_twice_stays_as_it_is() -> None:
    class Twice(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(self.quant(x))
            y: Tensor = self.dequant(self.grouped(self.grouped(x)))
            return y

    model = prepared(Twice().eval(), March.BAYES)
    calibrate(model, (MAP,))

    assert [entry.path for entry in round_weights(model, batches())] == ["stem.0"]
    assert [entry.path for entry in correct_bias(model, batches())] == ["stem.0"]


def test_passes_leave_modes_and_states_as_they_were() -> None:
    model = calibrated()
    model.train()
    set_fake_quantize(model, FakeQuantState.QAT)
    round_weights(model, batches())
    correct_bias(model, batches())
    stub: Any = model.get_submodule("quant")

    assert all(module.training for module in model.modules())
    assert bool(stub.activation_post_process.observer_enabled)
    assert bool(stub.activation_post_process.fake_quant_enabled)


def test_no_batches_are_refused() -> None:
    for run in (lambda: round_weights(calibrated(), []), lambda: reestimate_batch_norm(nn.BatchNorm2d(3), [])):
        with pytest.raises(ArgumentError, match="at least one calibration batch"):
            run()


@pytest.mark.filterwarnings("ignore:reestimate_batch_norm replaced")
def test_batch_norm_takes_the_averages_over_the_batches() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=0.3), nn.Dropout(0.5)).train()
    data = [torch.randn(4, 3, 6, 6) * (1 + step) for step in range(3)]
    assert reestimate_batch_norm(model, data) == 1

    norm: Any = model[1]
    outputs = [model[0](batch).detach().transpose(0, 1).flatten(1) for batch in data]
    torch.testing.assert_close(norm.running_mean, torch.stack([y.mean(1) for y in outputs]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([y.var(1) for y in outputs]).mean(0))
    mean = norm.running_mean.clone()
    with torch.no_grad():
        norm.running_mean.zero_()
    reestimate_batch_norm(model, data, share=0.25)
    torch.testing.assert_close(norm.running_mean, mean * 0.25)
    assert norm.momentum == 0.3
    assert model.training


@pytest.mark.filterwarnings("ignore:reestimate_batch_norm replaced")
def test_batch_norm_kept_in_training_follows_quantized_layers() -> None:
    case = NETS["resnet"]
    with qat_mode_scope(QATMode.WithBN), march_scope("bayes"):
        model = prepared(case.model(), March.BAYES)
        calibrate(model, case.shapes)
        train_steps(model, case.shapes, steps=2, lr=0.05)
        assert reestimate_batch_norm(model, [real_inputs(case.shapes, seed) for seed in range(4)]) > 5
        assert_exact(model, real_inputs(case.shapes, 9))


def test_statistics_of_few_images_are_warned_of() -> None:
    model, data = nn.BatchNorm2d(3), [torch.randn(40, 3, 2, 2)]
    with pytest.warns(UserWarning, match=r"replaced 100% of the statistics by those of 40 images[\s\S]*share=0\.04"):
        reestimate_batch_norm(model, data)
    assert reestimate_batch_norm(model, data, share=0.04) == 1


def test_model_without_batch_norm_is_refused() -> None:
    with pytest.raises(ArgumentError, match="no BatchNorm"):
        reestimate_batch_norm(calibrated(), batches())


class Tied(nn.Module):
    """Two layers with one weight, and one of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.second.weight = self.first.weight
        self.last = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dequant(self.last(self.second(torch.relu(self.first(self.quant(x))))))
        return y


def test_passes_leave_layers_alone_that_share_their_weights() -> None:
    torch.manual_seed(0)
    model = prepared(Tied().eval(), March.BAYES)
    x = torch.randn(2, 4, 8, 8) * torch.tensor([1.0, 5.0, 0.2, 3.0]).reshape(1, 4, 1, 1)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    assert equalize(model, [x]) == []
    calibrate(model, ((2, 4, 8, 8),))
    assert [each.path for each in correct_bias(model, [x])] == ["last"]
    assert [each.path for each in round_weights(model, [x])] == ["last"]
    for name, parameter in model.named_parameters():
        assert name.startswith("last") or torch.equal(parameter, before[name])


def test_batch_norm_statistics_are_as_before_where_a_batch_fails() -> None:
    model = nn.Sequential(nn.BatchNorm2d(4))
    nn.init.normal_(model[0].get_buffer("running_mean"))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}

    def failing() -> Any:
        yield torch.randn(2, 4, 3, 3)
        raise RuntimeError("no more data")

    for given, error in ((failing(), RuntimeError), ([], ArgumentError)):
        with pytest.raises(error):
            reestimate_batch_norm(model, given)
        assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())

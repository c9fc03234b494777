"""Number types, autocast, inference mode and memory formats: they change no integer, or are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bpu_qat_nn import ArgumentError, ObservedGraphModule, convert_fx
from bpu_qat_nn.testing import NETS, assert_exact, calibrate, differing, prepared, real_inputs, train_steps, validate
from bpu_qconfig import FakeQuantState, set_fake_quantize

CASE = NETS["resnet"]
(INPUT,) = real_inputs(CASE.shapes, seed=4)


@pytest.fixture
def model() -> ObservedGraphModule:
    observed = prepared(CASE.model(), "bayes")
    calibrate(observed, CASE.shapes)
    return observed


def test_model_in_float64_agrees(model: ObservedGraphModule) -> None:
    model.double()
    assert_exact(model, (INPUT.double(),))
    train_steps(model, CASE.shapes)
    assert_exact(model, (INPUT,))


def test_converted_model_gives_the_same_integers_in_float64(model: ObservedGraphModule) -> None:
    converted = convert_fx(model)
    steps = [converted(INPUT)]
    converted.double()
    steps.append(converted(INPUT))
    scale = converted.fc.scale
    assert torch.equal((steps[0] / scale).round(), (steps[1] / scale).round())


def test_float_model_in_float64_is_prepared_in_float64() -> None:
    model = prepared(CASE.model().double(), "bayes")
    model.eval()
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    model(INPUT.double())
    validate(model)
    assert_exact(model, (INPUT.double(),))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int32], ids=str)
def test_input_of_any_number_type_is_taken_as_float32(model: ObservedGraphModule, dtype: torch.dtype) -> None:
    given = (INPUT * 3).clamp(0, 7).to(dtype)
    converted = assert_exact(model, (given,))
    assert differing(converted(given), converted(given.float())) == 0


HALVES: dict[str, Callable[[nn.Module], Any]] = {
    "half": lambda m: m.half(),
    "bfloat16": lambda m: m.bfloat16(),
    "to": lambda m: m.to(torch.float16),
    "inside another": lambda m: nn.Sequential(m).half(),
}


@pytest.mark.parametrize("kind", HALVES)
@pytest.mark.parametrize("stage", ["prepared", "converted"])
def test_half_precision_is_refused(model: ObservedGraphModule, kind: str, stage: str) -> None:
    with pytest.raises(ArgumentError, match=r"half precision.*autocast"):
        HALVES[kind](model if stage == "prepared" else convert_fx(model))


def test_float_model_in_half_precision_is_refused_with_the_parameter() -> None:
    with pytest.raises(ArgumentError, match=r"stem\.0\.weight is in torch\.float16"):
        prepared(CASE.model().half(), "bayes")


@pytest.mark.parametrize("grad", [False, True], ids=["no_grad", "grad"])
def test_autocast_changes_no_integer(model: ObservedGraphModule, grad: bool) -> None:
    converted = convert_fx(model)
    expected = converted(INPUT)
    with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(grad):
        for stage in (model, converted):
            got = stage(INPUT)
            assert got.dtype == torch.float32
            assert differing(got, expected) == 0


def test_training_under_autocast_equals_training_without(model: ObservedGraphModule) -> None:
    model.train()
    set_fake_quantize(model, FakeQuantState.QAT)
    grads = []
    for enabled in (False, True):
        state = {name: value.clone() for name, value in model.state_dict().items()}
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = model(INPUT).square().sum()
        loss.backward()
        grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        model.load_state_dict(state)
    assert len(grads[0]) > 10
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_inference_mode_changes_no_integer(model: ObservedGraphModule) -> None:
    converted = convert_fx(model)
    expected = converted(INPUT)
    with torch.inference_mode():
        assert differing(model(INPUT), expected) == 0
        assert differing(converted(INPUT), expected) == 0
        inside = convert_fx(model)
        assert differing(inside(INPUT), expected) == 0
        inside.quant.scale.mul_(2.0)  # inference tensors count no versions
        assert differing(inside(INPUT), expected) > 0
    assert differing(inside(INPUT), expected) > 0


FORMATS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "strided": lambda x: x.repeat_interleave(2, 3)[..., ::2],
    "expanded batch": lambda x: x[:1].expand(2, -1, -1, -1),
    "one image": lambda x: x[:1],
    "odd size": lambda x: x[:, :, :31, :17],
}


@pytest.mark.parametrize("kind", FORMATS)
def test_memory_format_changes_no_integer(model: ObservedGraphModule, kind: str) -> None:
    given = FORMATS[kind](INPUT)
    converted = assert_exact(model, (given,))
    assert differing(converted(given), converted(given.contiguous())) == 0


def test_model_in_channels_last_agrees(model: ObservedGraphModule) -> None:
    expected = model(INPUT)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert_exact(model, (INPUT.to(memory_format=torch.channels_last),))
    assert differing(model(INPUT), expected) == 0


def test_empty_batch_gives_an_empty_result(model: ObservedGraphModule) -> None:
    assert model(INPUT[:0]).shape == (0, 10)
    assert convert_fx(model)(INPUT[:0]).shape == (0, 10)

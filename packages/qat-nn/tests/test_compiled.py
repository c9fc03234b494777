"""What torch.compile calls for a converted model follows the model's weights and scales; training it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bpu_kernels.march import March
from bpu_qat_nn import convert_fx
from bpu_qat_nn.compiled import compiled_call
from bpu_qat_nn.plain import plain_module
from bpu_qat_nn.testing import calibrate, prepared, real_inputs
from bpu_qat_nn.testing.case import MAP, Between
from bpu_qconfig import FakeQuantState, set_fake_quantize

(INPUT,) = real_inputs((MAP,), seed=3)


def converted() -> Any:
    torch.manual_seed(0)
    model = prepared(Between(nn.Conv2d(8, 4, 3)).eval(), March.BAYES)
    calibrate(model, (MAP,))
    return convert_fx(model)


def call(model: Any) -> Tensor:
    with torch.no_grad():
        y: Tensor = compiled_call(model, (INPUT,), {})
    return y


def test_scale_edited_through_data_counts() -> None:
    model = converted()
    before = call(model)
    model.quant.scale.data.fill_(0.5)
    assert not torch.equal(call(model), before)
    assert torch.equal(call(model), model(INPUT))


def test_model_made_in_inference_mode_is_called() -> None:
    with torch.inference_mode():
        model = converted()
    assert torch.equal(call(model), model(INPUT))


def test_module_is_made_once_for_a_model_that_does_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    model, made = converted(), []

    def counted(*args: Any) -> Any:
        made.append(plain_module(*args))
        return made[-1]

    monkeypatch.setattr("bpu_qat_nn.compiled.plain_module", counted)
    assert torch.equal(call(model), call(model))
    assert len(made) == 1


@pytest.mark.parametrize("state", [FakeQuantState.CALIBRATION, FakeQuantState.QAT, FakeQuantState.VALIDATION])
def test_compiled_model_under_training_gives_what_it_gives_alone(state: FakeQuantState) -> None:
    results = []
    for compiles in (False, True):
        torch.manual_seed(0)
        model = prepared(Between(nn.Conv2d(8, 4, 3)).eval(), March.BAYES)
        calibrate(model, (MAP,))
        model.train(state is FakeQuantState.QAT)
        set_fake_quantize(model, state)
        called: Any = torch.compile(model, backend="aot_eager") if compiles else model
        y = (called(INPUT) * 2.0).sum()
        y.backward()
        results.append([y.detach(), *(each.grad for each in model.parameters()), *model.buffers()])
    for alone, compiled in zip(*results, strict=True):
        assert torch.equal(alone, compiled)

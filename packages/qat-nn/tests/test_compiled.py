"""torch.compile sees a model as one operator, which gives what the model gives at that time."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bpu_kernels.march import March
from bpu_qat_nn import CaptureError, QuantStub, convert_fx
from bpu_qat_nn.capture.model_operator import model_of
from bpu_qat_nn.capture.observed_operator import kept_records
from bpu_qat_nn.testing import calibrate, prepared, real_inputs
from bpu_qat_nn.testing.case import MAP, Between
from bpu_qconfig import FakeQuantState, set_fake_quantize

(INPUT,) = real_inputs((MAP,), seed=3)


def converted() -> Any:
    torch.manual_seed(0)
    model = prepared(Between(nn.Conv2d(8, 4, 3)).eval(), March.BAYES)
    calibrate(model, (MAP,))
    return convert_fx(model)


def call(model: Any, backend: str = "eager") -> Tensor:
    torch.compiler.reset()
    called: Any = torch.compile(model, backend=backend, fullgraph=True)
    with torch.no_grad():
        y: Tensor = called(INPUT)
    return y


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_model_is_one_graph_with_the_integers_of_the_model(backend: str) -> None:
    model = converted()
    assert torch.equal(call(model, backend), model(INPUT))


def test_scale_and_weight_edited_after_compiling_count() -> None:
    model = converted()
    compiled: Any = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        before = compiled(INPUT)
        model.quant.scale.data.fill_(0.5)
        scaled = compiled(INPUT)
        assert torch.equal(scaled, model(INPUT))
        model.body.weight.neg_()
        assert torch.equal(compiled(INPUT), model(INPUT))
        assert not torch.equal(scaled, before)


def test_model_made_in_inference_mode_is_called() -> None:
    with torch.inference_mode():
        model = converted()
    assert torch.equal(call(model), model(INPUT))


def test_two_models_and_a_copy_stay_three() -> None:
    first, second = converted(), converted()
    second.quant.scale.fill_(0.5)
    third = copy.deepcopy(second)
    third.quant.scale.fill_(0.25)

    class All(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.models = nn.ModuleList([first, second, third])

        def forward(self, x: Tensor) -> dict[str, Any]:
            return {"all": [model(x * 2.0) for model in self.models], "named": (self.models[0](x=x), None)}

    got: Any = call(All())
    for y, model in zip(got["all"], (first, second, third), strict=True):
        assert torch.equal(y, model(INPUT * 2.0))
    assert torch.equal(got["named"][0], first(INPUT))


def test_model_that_ends_quantized_gives_its_integers() -> None:
    class Ends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant, self.conv = QuantStub(), nn.Conv2d(8, 4, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            y = self.conv(self.quant(x))
            return y, {"part": y[:, :2]}

    observed = prepared(Ends().eval(), March.BAYES)
    calibrate(observed, (MAP,))
    model = convert_fx(observed)
    got: Any = call(model)
    assert torch.equal(got[0], model(INPUT)[0].int_repr())
    assert torch.equal(got[1]["part"], model(INPUT)[1]["part"].int_repr())


def test_compiled_code_whose_model_is_gone_says_so() -> None:
    with pytest.raises(CaptureError, match="not in memory"):
        model_of(1)


STATES = [FakeQuantState.CALIBRATION, FakeQuantState.QAT, FakeQuantState.VALIDATION]


def observed(state: FakeQuantState) -> Any:
    torch.manual_seed(0)
    model = prepared(Between(nn.Conv2d(8, 4, 3)).eval(), March.BAYES)
    calibrate(model, (MAP,))
    model.train(state is FakeQuantState.QAT)
    set_fake_quantize(model, state)
    return model


def compile_whole(function: Any, backend: str) -> Any:
    torch.compiler.reset()
    return torch.compile(function, backend=backend, fullgraph=True)


def tensors_of(model: Any) -> list[Any]:
    return [*(each.grad for each in model.parameters()), *model.buffers()]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("state", STATES)
def test_model_under_training_is_one_operator_and_gives_what_it_gives_alone(
    state: FakeQuantState, backend: str
) -> None:
    results = []
    for compiles in (False, True):
        model = observed(state)
        called = compile_whole(model, backend) if compiles else model
        y = called(INPUT)
        (y * 2.0).sum().backward()
        results.append([y.detach(), *tensors_of(model)])
    for alone, compiled in zip(*results, strict=True):
        assert torch.equal(alone, compiled)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("state", STATES)
def test_every_call_counts_wanted_or_not(state: FakeQuantState, backend: str) -> None:
    """Equal calls are not taken for one, and a call whose result nobody reads is made: observers see each."""
    results = []
    for compiles in (False, True):
        model, first = observed(state), nn.Conv2d(8, 8, 1, bias=False)
        nn.init.eye_(first.weight.data[:, :, 0, 0])

        def step(x: Tensor, model: Any = model, first: Any = first) -> tuple[Tensor, ...]:
            model(x * 3.0)
            return model(x), model(x), model(first(x))

        outputs = (compile_whole(step, backend) if compiles else step)(INPUT)
        torch.autograd.backward(outputs, outputs)
        results.append([*(y.detach() for y in outputs), first.weight.grad, *tensors_of(model)])
    for alone, compiled in zip(*results, strict=True):
        assert torch.equal(alone, compiled)


def test_state_changed_after_compiling_counts() -> None:
    model = observed(FakeQuantState.CALIBRATION)
    called = compile_whole(model, "aot_eager")
    with torch.no_grad():
        called(INPUT)
        set_fake_quantize(model, FakeQuantState.VALIDATION)
        assert torch.equal(called(INPUT), convert_fx(model)(INPUT))


def test_record_of_a_call_without_backward_is_dropped() -> None:
    called = compile_whole(observed(FakeQuantState.VALIDATION), "aot_eager")
    y = called(INPUT)
    assert kept_records() == 1
    del y
    assert kept_records() == 0


def test_compiled_code_with_other_parameters_is_refused() -> None:
    model = observed(FakeQuantState.VALIDATION)
    others = {name: each.detach().clone().requires_grad_() for name, each in model.named_parameters()}
    called = compile_whole(lambda x: torch.func.functional_call(model, others, (x,)), "eager")
    with pytest.raises(CaptureError, match="other parameters than its own"):
        called(INPUT)

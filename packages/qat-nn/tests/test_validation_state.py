"""VALIDATION state: integers travel where no gradient is recorded, and whoever takes them takes values as well."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bpu_kernels.march import March
from bpu_qat_nn import QATModule, QTensor
from bpu_qat_nn.testing import CASES, calibrate, prepared, real_inputs
from bpu_qconfig import FakeQuantState, set_fake_quantize

BAYES = [name for name, case in CASES.items() if March.BAYES in case.marches]


def recorded(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[tuple[QATModule, tuple[Any, ...], Any]]:
    """Run a model; return its quantized modules with what they took and gave."""
    seen: list[tuple[QATModule, tuple[Any, ...], Any]] = []
    modules = [module for module in model.modules() if isinstance(module, QATModule)]
    hooks = [each.register_forward_hook(lambda *called: seen.append(called)) for each in modules]
    model(*inputs)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("name", BAYES)
def test_modules_pass_integers_where_no_gradient_is_recorded(name: str) -> None:
    case = CASES[name]
    model = prepared(case.model(), March.BAYES, case.bits[0])
    calibrate(model, case.shapes)
    with torch.no_grad():
        seen = recorded(model, real_inputs(case.shapes, 5))
    assert all(output.holds_steps for _, _, output in seen if isinstance(output, QTensor))


@pytest.mark.parametrize("state", FakeQuantState)
@pytest.mark.parametrize("name", ["conv2d_add_relu", "linear", "max_pool2d", "relu", "table_sigmoid", "conv2d_relu6"])
def test_integers_and_their_values_are_the_same_input_in_every_state(name: str, state: FakeQuantState) -> None:
    case = CASES[name]
    model = prepared(case.model(), March.BAYES)
    calibrate(model, case.shapes)
    with torch.no_grad():
        seen = recorded(model, real_inputs(case.shapes, 5))
    model.train(state is FakeQuantState.QAT)
    set_fake_quantize(model, state)
    for module, inputs, _ in seen:
        quantized = all(isinstance(x, QTensor) for x in inputs)
        if not quantized or "FloatFunctional" in module.label:
            continue
        from_steps = deepcopy(module)(*(x.as_steps() for x in inputs)).dequantize()  # copies: scales may move
        from_values = deepcopy(module)(*(x.as_values() for x in inputs)).dequantize()
        assert torch.equal(from_steps, from_values), module.label


def test_values_of_integers_keep_them() -> None:
    x = QTensor(torch.arange(-128, 128).to(torch.int8), 0.3)
    values = x.as_values()
    assert not values.holds_steps
    assert torch.equal(values.int_repr(), x.int_repr())
    assert torch.equal(values.dequantize(), x.dequantize())
    assert values.as_values() is values

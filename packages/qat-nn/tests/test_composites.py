"""Composites: options are honoured or refused, zeros spoil nothing, and what is frozen stays frozen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_kernels.march import March, march_row
from bpu_qat_nn import PrepareError, convert_fx
from bpu_qat_nn.ops.reduction import is_summable
from bpu_qat_nn.ops.table import QuantizedTable
from bpu_qat_nn.ops.weighted.layer import WeightedQuantized
from bpu_qat_nn.testing import assert_exact, prepared, validate
from bpu_qat_nn.testing.case import Between, BetweenTwo, Calls, CallsLayer
from bpu_qconfig import FakeQuantState, set_fake_quantize

TOKENS = (2, 9, 16)
VOLUME = (2, 4, 6, 6, 6)


def calibrated(body: nn.Module, x: Tensor) -> Any:
    model = prepared(Between(body).eval(), March.BAYES).eval()
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    with torch.no_grad():
        model(x)
    validate(model)
    return model


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "divisor of a pooling": (lambda: nn.AvgPool3d(2, divisor_override=3), "divisor_override"),
    "dilation in space": (lambda: nn.MaxPool3d((1, 1, 2), 2, dilation=(1, 1, 2)), "dilation"),
    "dilation in time": (lambda: nn.MaxPool3d(2, 2, dilation=(2, 1, 1)), "dilation"),
    "indices of a pooling": (lambda: nn.MaxPool3d(2, return_indices=True), "return_indices"),
    "running statistics": (lambda: nn.InstanceNorm3d(4, track_running_stats=True), "track_running_stats=True"),
    "a prime mean": (lambda: nn.LayerNorm(8209), "mean of 8209 values"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_option_without_integer_form_is_refused(name: str) -> None:
    make, reason = REFUSED[name]
    with pytest.raises(PrepareError, match=reason):
        prepared(Between(make()).eval(), March.BAYES)


def test_reciprocals_of_all_int8_are_the_rounded_ones_on_both_sides_of_the_pole() -> None:
    x = torch.cat([torch.linspace(0.2, 2, 50), -torch.linspace(0.2, 2, 50)]).reshape(1, 1, 10, 10)
    model = convert_fx(calibrated(Calls(torch.reciprocal), x))
    steps = torch.cat([torch.arange(-128, 0), torch.arange(1, 128)]).double()
    real = steps * float(model.quant.scale)
    found = model(real.float().reshape(1, 1, 1, -1)).flatten().double()
    (scale,) = (float(module.scale) for module in model.modules() if isinstance(module, QuantizedTable))
    assert torch.allclose(found, (1 / real / scale + 0.5).floor().clamp(-128, 127) * scale, rtol=1e-6)


@pytest.mark.parametrize("least", [0.01, 0.05, 0.2, 0.5])
def test_quotients_by_all_int8_are_within_a_step_on_both_sides_of_the_pole(least: float) -> None:
    """A quotient saturates where the divisor is smaller than any that was seen; by 0 it is 0."""
    divisors = torch.cat([torch.linspace(least, 1, 500), -torch.linspace(least, 1, 500)]).reshape(1, 1, 1, 1000)
    dividends = torch.ones(1000).reshape(1, 1, 1, 1000)
    observed = prepared(BetweenTwo(Calls(torch.div)).eval(), March.BAYES).eval()
    set_fake_quantize(observed, FakeQuantState.CALIBRATION)
    observed(dividends, divisors)
    validate(observed)
    model: Any = convert_fx(observed)
    y = torch.arange(-127, 128).double() * float(model.quant2.scale)
    for x in (1.0, -1.0):
        found = model(torch.full((1, 1, 1, 255), x), y.float().reshape(1, 1, 1, 255)).flatten().double()
        exact = torch.where(y == 0, 0.0, x / y).clamp(-1 / least, 1 / least)
        assert float((found - exact).abs().max()) <= 1.0 / least / 127


@pytest.mark.parametrize("length", [8192, 8194, 2**20])
def test_means_with_divisors_are_computed_in_stages(length: int) -> None:
    assert is_summable(length, march_row("bayes"))


def test_attention_with_a_boolean_mask_is_close_to_the_float_one() -> None:
    torch.manual_seed(0)
    mask = nn.ParameterList([nn.Parameter(torch.ones(9, 9).tril().bool(), requires_grad=False)])
    body = CallsLayer(mask, lambda m, x: F.scaled_dot_product_attention(x, x, x, attn_mask=m[0]))
    x = torch.randn(2, 4, 9, 8)
    model = calibrated(body, x)
    with torch.no_grad():
        assert float((model(x) - body(x)).square().mean().sqrt()) < 0.05
    assert_exact(model, (x,))


LENGTHS: dict[str, Callable[[Tensor], Tensor]] = {
    "norm": lambda x: x.norm(dim=1),
    "normalize": lambda x: F.normalize(x, dim=1),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_length_of_a_zero_vector_spoils_neither_range_nor_gradient(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 6, 6)
    x[0, :, 0, 0] = 0.0
    model = calibrated(Calls(LENGTHS[name]), x)
    with torch.no_grad():
        torch.testing.assert_close(model(x), LENGTHS[name](x), rtol=0.0, atol=0.08)
    assert_exact(model, (x,))
    set_fake_quantize(model.train(), FakeQuantState.QAT)
    given = x.clone().requires_grad_()
    model(given).sum().backward()
    assert given.grad is not None
    assert torch.isfinite(given.grad).all()


def test_group_norm_with_a_bias_alone_adds_it() -> None:
    norm: Any = nn.GroupNorm(2, 8)
    nn.init.uniform_(norm.bias, 1.0, 2.0)
    norm.weight = None
    x = torch.randn(2, 8, 4, 4)
    model = calibrated(norm, x)
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    with torch.no_grad():
        torch.testing.assert_close(model(x), norm(x), rtol=1e-4, atol=1e-5)


FROZEN: dict[str, Callable[[], nn.Module]] = {
    "attention": lambda: CallsLayer(nn.MultiheadAttention(16, 4, batch_first=True), lambda m, x: m(x, x, x)[0]),
    "layer_norm": lambda: nn.LayerNorm(16),
    "prelu": lambda: nn.PReLU(9),
    "lstm_cell": lambda: CallsLayer(nn.LSTMCell(16, 16), lambda m, x: m(x[:, 0], (x[:, 1], x[:, 2]))[0]),
}


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "learning"])
@pytest.mark.parametrize("name", FROZEN)
def test_parameters_of_a_composite_learn_as_before(name: str, frozen: bool) -> None:
    body = FROZEN[name]().requires_grad_(not frozen)
    with torch.no_grad():
        model = prepared(Between(body), March.BAYES)
    learns = {parameter.requires_grad for path, parameter in model.named_parameters() if path.startswith("body")}
    assert learns == {not frozen}


def test_parts_of_a_composite_are_converted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = calibrated(FROZEN["attention"](), torch.randn(TOKENS))
    made, convert = [], WeightedQuantized.__init__

    def counted(self: Any, source: Any) -> None:
        made.append(source)
        convert(self, source)

    monkeypatch.setattr(WeightedQuantized, "__init__", counted)
    convert_fx(model)
    assert len(made) == 4

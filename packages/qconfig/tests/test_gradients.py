"""Gradients of all kinds of fake quantizers: against torch, against autograd of the formulas, by finite differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bpu_qconfig import FakeQuantize, LearnableFakeQuantize, MovingAveragePerChannelMinMaxObserver, PACTFakeQuantize

PER_CHANNEL: dict[str, Any] = {"observer": MovingAveragePerChannelMinMaxObserver, "channel_len": 3, "ch_axis": 1}


def with_scale(scale: float | list[float], cls: type[FakeQuantize] = FakeQuantize, **arguments: Any) -> FakeQuantize:
    fake = cls(**arguments)
    fake.set_qparams(scale)
    fake.disable_observer()
    return fake


def gradient(fake: torch.nn.Module, x: Tensor, incoming: Tensor) -> Tensor:
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    fake(x).backward(incoming)
    assert x.grad is not None
    return x.grad


def edges(fake: FakeQuantize, x: Tensor) -> Tensor:
    """Whether values lie within rounding of the half step at which the gradient ends."""
    quotient = x / fake._along(x, fake.scale)
    return ((quotient - (fake.quant_max + 0.5)).abs() < 1e-3) | ((quotient - (fake.quant_min - 0.5)).abs() < 1e-3)


@pytest.mark.parametrize("compat_mask", [True, False], ids=["bits", "bytes"])
@pytest.mark.parametrize("saturate", [None, True])
@pytest.mark.parametrize("scale", [1.0, 0.5, 0.013, 1 / 128])
def test_gradient_equals_torch_per_tensor(scale: float, saturate: bool | None, compat_mask: bool) -> None:
    fake = with_scale(scale, saturate=saturate, compat_mask=compat_mask)
    x, incoming = torch.randn(4, 3, 7, 5) * scale * 128, torch.randn(4, 3, 7, 5)
    theirs = x.clone().requires_grad_()
    torch.fake_quantize_per_tensor_affine(theirs, scale, 0, -128, 127).backward(incoming)  # type: ignore[no-untyped-call]
    away = ~edges(fake, x)
    assert theirs.grad is not None
    assert torch.equal(gradient(fake, x, incoming)[away], theirs.grad[away])
    assert (theirs.grad == 0).any()


@pytest.mark.parametrize("channels_last", [False, True])
def test_gradient_equals_torch_per_channel(channels_last: bool) -> None:
    fake = with_scale([0.01, 0.02, 0.5], **PER_CHANNEL)
    x, incoming = torch.randn(4, 3, 7, 5) * 3, torch.randn(4, 3, 7, 5)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    theirs = x.clone().requires_grad_()
    out = torch.fake_quantize_per_channel_affine(theirs, fake.scale, fake.zero_point.int(), 1, -128, 127)
    out.backward(incoming)  # type: ignore[no-untyped-call]
    away = ~edges(fake, x)
    assert theirs.grad is not None
    assert torch.equal(gradient(fake, x, incoming)[away], theirs.grad[away])


@pytest.mark.parametrize("cls", [FakeQuantize, LearnableFakeQuantize, PACTFakeQuantize])
def test_gradient_ends_after_the_half_step(cls: type[FakeQuantize]) -> None:
    """[(quant_min - 0.5) * scale, (quant_max + 0.5) * scale], both ends included."""
    scale = 0.25
    x = torch.tensor([-128.5, 127.5, -128.5000153, 127.50001, 0.0]) * scale
    assert gradient(with_scale(scale, cls), x, torch.ones(5)).tolist() == [1.0, 1.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("cls", [FakeQuantize, LearnableFakeQuantize, PACTFakeQuantize])
def test_gradient_passes_everywhere_without_saturation(cls: type[FakeQuantize]) -> None:
    incoming = torch.randn(100)
    assert torch.equal(gradient(with_scale(0.01, cls, saturate=False), torch.randn(100) * 9, incoming), incoming)


@pytest.mark.parametrize("cls", [FakeQuantize, LearnableFakeQuantize, PACTFakeQuantize])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_gradient_keeps_the_dtype(cls: type[FakeQuantize], dtype: torch.dtype) -> None:
    fake = with_scale(0.02, cls)
    x = (torch.randn(1000) * 3).to(dtype)
    grad = gradient(fake, x, torch.ones_like(x))
    assert grad.dtype == dtype
    inside = (x.double() >= -128.5 * 0.02) & (x.double() <= 127.5 * 0.02)
    away = ~edges(fake, x.double())
    assert torch.equal(grad.bool()[away], inside[away])
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in fake.parameters())


def test_integers_of_the_caller_do_not_change_the_gradient_of_x() -> None:
    fake = with_scale(0.1)
    x = torch.tensor([0.5, 50.0], requires_grad=True)
    fake.straight_through(x, torch.tensor([-7.0, 3.0])).backward(torch.ones(2))  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 0.0]


def test_no_mask_is_kept_without_gradient() -> None:
    fake = with_scale(0.1)
    x = torch.randn(5, requires_grad=True)
    with torch.no_grad():
        assert fake(x).grad_fn is None
    assert fake(x.detach()).grad_fn is None


def lsq_by_autograd(x: Tensor, scale: Tensor, low: int, high: int, factor: float) -> Tensor:
    """Equation (1) of LSQ with stop-gradient rounding and the gradient scale of its appendix."""
    scale = scale * factor + (scale - scale * factor).detach()
    clamped = (x / scale).clamp(low - 0.5, high + 0.5)
    rounded = clamped + (clamped.round().clamp(low, high) - clamped).detach()
    saturated = torch.where(clamped >= high + 0.5, high, torch.where(clamped <= low - 0.5, low, rounded))
    return saturated * scale


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "use_grad_scaling"])
@pytest.mark.parametrize("per_channel", [False, True], ids=["tensor", "channel"])
def test_lsq_gradients_equal_autograd_of_the_paper(per_channel: bool, scaled: bool) -> None:
    scales = [0.02, 0.05, 0.5] if per_channel else [0.03]
    fake = with_scale(scales, LearnableFakeQuantize, use_grad_scaling=scaled, **(PER_CHANNEL if per_channel else {}))
    x, incoming = torch.randn(4, 3, 7, 5) * 4, torch.randn(4, 3, 7, 5)
    ours = gradient(fake, x, incoming)

    scale = torch.tensor(scales, requires_grad=True)
    theirs = x.clone().requires_grad_()
    factor = (x.numel() / len(scales) * 127) ** -0.5 if scaled else 1.0
    view = scale.reshape(1, 3, 1, 1) if per_channel else scale
    lsq_by_autograd(theirs, view, -128, 127, factor).backward(incoming)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(ours, theirs.grad)
    torch.testing.assert_close(fake.scale.grad, scale.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [2.34, -1.2, 0.0, 40.0, -40.0])
def test_lsq_gradient_is_the_slope_where_the_integer_stays(value: float) -> None:
    """With q held, d(q * s)/ds = q outside; inside LSQ subtracts x / s, the slope that the rounding hides."""
    fake = with_scale(0.1, LearnableFakeQuantize)
    fake(torch.tensor([value])).backward()
    q = max(-128, min(127, round(value / 0.1)))
    expected = q - (value / 0.1 if -128.5 <= value / 0.1 <= 127.5 else 0.0)
    assert fake.scale.grad is not None
    assert fake.scale.grad.item() == pytest.approx(expected, abs=1e-4)


def test_lsq_uses_the_integers_of_the_caller() -> None:
    fake = with_scale(0.5, LearnableFakeQuantize)
    fake.straight_through(torch.tensor([1.2]), torch.tensor([3.0])).backward()  # type: ignore[no-untyped-call]
    assert fake.scale.grad is not None
    assert fake.scale.grad.item() == pytest.approx(3.0 - 1.2 / 0.5)


@pytest.mark.parametrize("per_channel", [False, True], ids=["tensor", "channel"])
def test_pact_gradients_equal_autograd_of_the_clamp(per_channel: bool) -> None:
    """PACT learns alpha through y = clamp(x, -alpha, alpha); the rounding passes straight through."""
    scales = [0.02, 0.05, 0.5] if per_channel else [0.03]
    fake = with_scale(scales, PACTFakeQuantize, **(PER_CHANNEL if per_channel else {}))
    assert isinstance(fake, PACTFakeQuantize)
    x, incoming = torch.randn(4, 3, 7, 5) * 4, torch.randn(4, 3, 7, 5)
    # Between -128.5 and -127.5 steps a value is still represented, so the two differ there.
    quotient = x / fake._along(x, fake.scale)
    incoming[(quotient > -128.6) & (quotient < -127.4)] = 0.0
    ours = gradient(fake, x, incoming)

    alpha = fake.alpha.detach().clone().requires_grad_()
    theirs = x.clone().requires_grad_()
    view = alpha.reshape(1, 3, 1, 1) if per_channel else alpha
    torch.clamp(theirs, -view, view).backward(incoming)  # type: ignore[no-untyped-call]
    assert torch.equal(ours, theirs.grad)  # type: ignore[arg-type]
    torch.testing.assert_close(fake.alpha.grad, alpha.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [40.0, -40.0, 1.0])
def test_pact_gradient_is_the_finite_difference_of_the_clipping(value: float) -> None:
    fake = with_scale(0.1, PACTFakeQuantize)
    assert isinstance(fake, PACTFakeQuantize)
    fake(torch.tensor([value])).backward()
    alpha, step = fake.alpha.item(), 1e-3
    clip = [max(-a, min(a, value)) for a in (alpha + step, alpha - step)]
    assert fake.alpha.grad is not None
    assert fake.alpha.grad.item() == pytest.approx((clip[0] - clip[1]) / (2 * step), abs=1e-3)

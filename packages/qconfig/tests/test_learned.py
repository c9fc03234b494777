"""LSQ and PACT as modules: where the scale starts, how it stays positive, when observation moves it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import bpu_qconfig
from bpu_qconfig import (
    FakeQuantize,
    FakeQuantState,
    FixedScaleObserver,
    LearnableFakeQuantize,
    MovingAveragePerChannelMinMaxObserver,
    PACTFakeQuantize,
    scale_from_range,
    set_fake_quantize,
)

both = pytest.mark.parametrize("cls", [LearnableFakeQuantize, PACTFakeQuantize], ids=["lsq", "pact"])


def learned(fake: FakeQuantize) -> torch.nn.Parameter:
    (parameter,) = fake.parameters()
    return parameter


def test_documented_name_of_lsq_is_the_same_class() -> None:
    assert bpu_qconfig._LearnableFakeQuantize is LearnableFakeQuantize


@both
def test_first_batch_gives_the_start_value_and_later_ones_do_not(cls: type[FakeQuantize]) -> None:
    fake = cls(averaging_constant=1.0)
    x = torch.randn(100)
    fake(x)
    start = fake.scale.detach().clone()
    assert torch.equal(start, scale_from_range(x.min(), x.max()).reshape(1))
    fake(x * 5)
    assert torch.equal(fake.scale.detach(), start)
    assert fake.activation_post_process.max_val == (x * 5).max()


@both
def test_calibration_moves_the_scale_with_every_batch(cls: type[FakeQuantize]) -> None:
    fake = cls(averaging_constant=1.0)
    set_fake_quantize(fake.eval(), FakeQuantState.CALIBRATION)
    for factor in (1.0, 3.0):
        x = torch.randn(100) * factor
        assert fake(x) is x
        assert torch.equal(fake.scale.detach(), scale_from_range(x.min(), x.max()).reshape(1))


@both
def test_set_scale_is_a_start_value_too(cls: type[FakeQuantize]) -> None:
    fake = cls()
    fake.set_qparams(0.25)
    fake(torch.randn(10) * 100)
    assert fake.scale.tolist() == [0.25]


def trained(fake: FakeQuantize, x: torch.Tensor, target: torch.Tensor, steps: int = 100) -> list[float]:
    optimizer = torch.optim.Adam(fake.parameters(), lr=0.02)
    losses = []
    for _ in range(steps):
        loss = (fake(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_lsq_narrows_a_range_that_outliers_stretch() -> None:
    x = torch.randn(4096, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    x[:2] = 20.0
    losses = trained(LearnableFakeQuantize(quant_min=-8, quant_max=7), x, x.clamp(-1, 1))
    assert losses[-1] < losses[0] / 5


def test_pact_widens_a_range_that_clips() -> None:
    x = torch.randn(4096, generator=torch.Generator().manual_seed(0))
    fake = PACTFakeQuantize()
    fake.set_qparams(0.1 / 127)
    losses = trained(fake, x, x)
    assert losses[-1] < losses[0] / 5


@both
@pytest.mark.parametrize("per_channel", [False, True])
def test_scale_is_positive_after_any_step(cls: type[FakeQuantize], per_channel: bool) -> None:
    arguments: dict[str, Any] = {"observer": MovingAveragePerChannelMinMaxObserver} if per_channel else {}
    fake = cls(channel_len=2, **arguments)
    fake(torch.randn(2, 3))
    learned(fake).data.fill_(-5.0)
    assert (fake.state_dict()["scale"] > 0).all()
    learned(fake).data.fill_(-5.0)
    assert (fake.scale > 0).all()
    learned(fake).data.zero_()
    assert (fake.calculate_qparams()[0] > 0).all()
    assert torch.isfinite(fake(torch.randn(2, 3))).all()
    assert not fake.zero_point.any()


@pytest.mark.parametrize(("cls", "rate"), [(LearnableFakeQuantize, 1e-6), (PACTFakeQuantize, 1e-2)])
def test_scale_recovers_from_the_floor(cls: type[FakeQuantize], rate: float) -> None:
    fake = cls()
    fake(torch.randn(10))
    learned(fake).data.fill_(-1.0)
    optimizer = torch.optim.SGD(fake.parameters(), lr=rate)
    for _ in range(50):
        optimizer.zero_grad()
        (fake(torch.ones(10)) - 1.0).square().sum().backward()
        optimizer.step()
    assert fake(torch.ones(1)).item() == pytest.approx(1.0, abs=0.02)


@both
def test_fixed_scales_stay_while_others_are_learned(cls: type[FakeQuantize]) -> None:
    fixed, free = cls(observer=FixedScaleObserver, scale=1 / 128), cls()
    free.set_qparams(1 / 256)
    model = torch.nn.Sequential(fixed, free)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    model(torch.randn(64) * 3).square().sum().backward()
    optimizer.step()
    assert fixed.scale.tolist() == [1 / 128]
    assert free.scale.tolist() != [1 / 256]


def test_pact_scale_is_that_of_its_clipping_value() -> None:
    fake = PACTFakeQuantize()
    fake(torch.randn(10))
    fake.alpha.data.fill_(3.7)
    expected = scale_from_range(-fake.alpha, fake.alpha)
    assert torch.equal(fake.scale, expected)
    assert torch.equal(fake.state_dict()["scale"], expected)


@both
def test_scale_may_be_read_between_forward_and_backward(cls: type[FakeQuantize]) -> None:
    fake = cls()
    x = torch.randn(10, requires_grad=True)
    out = fake(x) + fake(x)
    assert fake.scale > 0
    out.sum().backward()
    assert learned(fake).grad is not None


@both
def test_ranges_are_synchronised_unless_told_otherwise(cls: type[FakeQuantize]) -> None:
    assert cls().activation_post_process.is_sync_quantize
    assert not cls(is_sync_quantize=False).activation_post_process.is_sync_quantize
    assert not FakeQuantize().activation_post_process.is_sync_quantize

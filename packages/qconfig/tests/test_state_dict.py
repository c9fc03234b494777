"""Checkpoints: between all kinds of fake quantizers, of older shapes, and what is refused."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch

from bpu_qconfig import (
    FakeQuantize,
    FixedScaleObserver,
    LearnableFakeQuantize,
    MinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PACTFakeQuantize,
    PercentileObserver,
)

KINDS: dict[str, type[FakeQuantize]] = {
    "fake_quant": FakeQuantize,
    "lsq": LearnableFakeQuantize,
    "pact": PACTFakeQuantize,
}
PER_CHANNEL: dict[str, Any] = {"observer": MovingAveragePerChannelMinMaxObserver, "ch_axis": 0}


@pytest.mark.parametrize("source", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("target", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("arguments", [{}, {**PER_CHANNEL, "channel_len": 3}], ids=["tensor", "channel"])
def test_every_kind_loads_every_other_strictly(
    source: type[FakeQuantize], target: type[FakeQuantize], arguments: dict[str, Any]
) -> None:
    saved = torch.nn.Sequential(source(**arguments))
    saved(torch.randn(3, 20))
    loaded = torch.nn.Sequential(target(**arguments))
    loaded.load_state_dict(saved.state_dict())
    ours, theirs = loaded[0], saved[0]
    assert isinstance(ours, FakeQuantize)
    assert isinstance(theirs, FakeQuantize)
    exact = target is not PACTFakeQuantize or source is PACTFakeQuantize  # the way over alpha rounds
    torch.testing.assert_close(ours.scale, theirs.scale, rtol=0 if exact else 1.2e-7, atol=0, check_device=False)
    assert torch.equal(ours.activation_post_process.min_val, theirs.activation_post_process.min_val)
    assert torch.equal(ours.activation_post_process.max_val, theirs.activation_post_process.max_val)


def test_loading_goes_on_exactly_where_saving_stopped() -> None:
    saved = FakeQuantize(averaging_constant=0.1)
    saved(torch.randn(50))
    loaded = FakeQuantize(averaging_constant=0.1)
    stored = io.BytesIO()
    torch.save(saved.state_dict(), stored)
    stored.seek(0)
    loaded.load_state_dict(torch.load(stored, weights_only=True))
    x = torch.randn(50)
    assert torch.equal(loaded(x), saved(x))
    assert torch.equal(loaded.scale, saved.scale)


def test_calibrated_with_another_observer_loads() -> None:
    saved = FakeQuantize(PercentileObserver)
    saved(torch.randn(50))
    loaded = LearnableFakeQuantize(MinMaxObserver)
    loaded.load_state_dict(saved.state_dict())
    loaded(torch.randn(50) * 9)  # the loaded value is the start value
    assert torch.equal(loaded.scale, saved.scale)


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_scalars_load_from_both_shapes(kind: type[FakeQuantize], shape: tuple[int, ...]) -> None:
    fake = kind()
    fake.load_state_dict(
        {
            "scale": torch.full(shape, 0.5),
            "zero_point": torch.zeros(shape, dtype=torch.int32),
            "activation_post_process.min_val": torch.full(shape, -1.0),
            "activation_post_process.max_val": torch.full(shape, 2.0),
        }
    )
    assert fake.scale.tolist() == [0.5]
    assert fake.zero_point.tolist() == [0]
    assert fake.activation_post_process.min_val.item() == -1.0
    assert fake.activation_post_process.min_val.shape == ()


def test_number_of_channels_left_open_is_taken_from_the_checkpoint() -> None:
    saved = FakeQuantize(**PER_CHANNEL, channel_len=5)
    saved(torch.randn(5, 2))
    for kind in KINDS.values():
        loaded = kind(**PER_CHANNEL)
        loaded.load_state_dict(saved.state_dict())
        assert loaded.scale.shape == (5,)
        torch.testing.assert_close(loaded.scale, saved.scale, check_device=False)


def state(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    return {**FakeQuantize().state_dict(), **changes}


REFUSED: dict[str, tuple[FakeQuantize, dict[str, torch.Tensor], str]] = {
    "channels into tensor": (
        FakeQuantize(),
        state(scale=torch.ones(3)),
        r"0\.scale: expected shape \[1\] \(or \[\], \[1\]\), the checkpoint has \[3\]",
    ),
    "another number of channels": (
        FakeQuantize(**PER_CHANNEL, channel_len=4),
        FakeQuantize(**PER_CHANNEL, channel_len=3).state_dict(),
        r"0\.scale: expected shape \[4\], the checkpoint has \[3\]; make the module with channel_len=3",
    ),
    "matrix": (FakeQuantize(**PER_CHANNEL), state(scale=torch.ones(2, 2)), r"the checkpoint has \[2, 2\]"),
    "zero point": (
        FakeQuantize(),
        state(zero_point=torch.tensor([128])),
        r"0\.zero_point: expected 0, the checkpoint has \[128\]; the BPU is symmetric",
    ),
    "scale 0": (FakeQuantize(), state(scale=torch.zeros(1)), r"expected a positive finite scale, .* has \[0\.0\]"),
    "scale nan": (FakeQuantize(), state(scale=torch.full((1,), torch.nan)), r"expected a positive finite scale, .*nan"),
    "fixed": (
        FakeQuantize(FixedScaleObserver, scale=0.5),
        state(scale=torch.tensor([0.25])),
        r"fixed at \[0\.5\], the checkpoint has \[0\.25\]; load_observer_params leaves fixed scales",
    ),
}


@pytest.mark.parametrize(("fake", "checkpoint", "message"), REFUSED.values(), ids=REFUSED)
def test_checkpoints_are_refused(fake: FakeQuantize, checkpoint: dict[str, torch.Tensor], message: str) -> None:
    before = fake.scale.clone()
    with pytest.raises(RuntimeError, match=message):
        torch.nn.Sequential(fake).load_state_dict({f"0.{key}": value for key, value in checkpoint.items()})
    assert torch.equal(fake.scale, before)
    assert not fake.zero_point.any()


def test_equal_fixed_scales_load() -> None:
    saved, loaded = (FakeQuantize(FixedScaleObserver, scale=1 / 128) for _ in range(2))
    loaded.load_state_dict(saved.state_dict())
    assert loaded.scale.tolist() == [1 / 128]


def test_switches_survive_loading() -> None:
    fake = FakeQuantize()
    fake.disable_observer()
    fake.load_state_dict(FakeQuantize().state_dict())
    assert not fake.observer_enabled


def test_learned_parameter_stays_the_one_that_the_optimizer_knows() -> None:
    saved = FakeQuantize(**PER_CHANNEL, channel_len=3)
    saved(torch.randn(3, 4))
    fake = LearnableFakeQuantize(**PER_CHANNEL)
    (parameter,) = fake.parameters()
    fake.load_state_dict(saved.state_dict())
    assert next(fake.parameters()) is parameter

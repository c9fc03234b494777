"""A range that the engine moves in one call is the one that the observer and the rule of scales give by themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bpu_kernels.engine import native_available
from bpu_qconfig import (
    ClipObserver,
    ClipStdObserver,
    FakeQuantize,
    KLObserver,
    MinMaxObserver,
    MixObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    MSEObserver,
    ObservationError,
    PercentileObserver,
    PerChannelMinMaxObserver,
    followed_range,
)

PER_CHANNEL: dict[str, Any] = {"qscheme": torch.per_channel_symmetric, "ch_axis": 0}
OBSERVERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "min_max": (MinMaxObserver, {}),
    "moving_average": (MovingAverageMinMaxObserver, {"averaging_constant": 0.3}),
    "latest": (MovingAverageMinMaxObserver, {"averaging_constant": 1.0}),
    "kept": (MinMaxObserver, {"averaging_constant": 0.0}),
    "by_channel": (MovingAveragePerChannelMinMaxObserver, {"ch_axis": 0, "averaging_constant": 0.3}),
    "by_second_axis": (MovingAveragePerChannelMinMaxObserver, {"ch_axis": 1}),
    "extremes": (PerChannelMinMaxObserver, {}),
    "clip": (ClipObserver, {"low": -0.5, "high": 0.75}),
    "clip_std": (ClipStdObserver, {}),
    "percentile": (PercentileObserver, {"percentile": 99.0}),
    "percentile_by_channel": (PercentileObserver, {"percentile": 90.0, **PER_CHANNEL}),
    "mse": (MSEObserver, {}),
    "mse_int16": (MSEObserver, {"dtype": "qint16"}),
    "mix": (MixObserver, {}),
    "kl": (KLObserver, {"bins": 300}),
    "kl_every_second": (KLObserver, {"bins": 300, "update_interval": 2}),
    "synchronised": (MinMaxObserver, {"is_sync_quantize": True}),
}


def batches(memory: torch.memory_format) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    made = [torch.randn(4, 6, 9, 11, generator=generator) * factor for factor in (1.0, 3.0, 0.5, 2.0)]
    return [x.contiguous(memory_format=memory) for x in made]


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("name", OBSERVERS)
def test_range_and_scale_are_those_of_the_observer(name: str, memory: torch.memory_format) -> None:
    observer, arguments = OBSERVERS[name]
    fake, alone = FakeQuantize(observer, **arguments), observer(**arguments)
    for x in batches(memory):
        fake.observe(x)
        alone(x)
        found = fake.activation_post_process
        assert torch.equal(found.min_val, alone.min_val)
        assert torch.equal(found.max_val, alone.max_val)
        assert found.batches == alone.batches
        assert torch.equal(fake.scale, alone.calculate_qparams()[0])


@pytest.mark.skipif(not native_available(), reason="the native engine is not installed")
@pytest.mark.parametrize(
    "name", [name for name in OBSERVERS if name not in ("by_second_axis", "extremes", "synchronised")]
)
def test_engine_knows_the_observer(name: str) -> None:
    observer, arguments = OBSERVERS[name]
    fake, x = FakeQuantize(observer, **arguments), torch.randn(4, 50)
    fake.observe(x)  # makes room for the channels
    assert followed_range.follow_natively(fake.activation_post_process, fake.scale, x)


def test_a_bad_batch_is_told_once_and_counted() -> None:
    fake = FakeQuantize(MovingAverageMinMaxObserver)
    fake.observe(torch.ones(3))
    with pytest.raises(ObservationError, match=r"batch 2 holds NaN or infinity \(1 of 3 values\)"):
        fake.observe(torch.tensor([1.0, torch.nan, 2.0]))
    fake.observe(torch.ones(3))
    assert fake.activation_post_process.batches == 3

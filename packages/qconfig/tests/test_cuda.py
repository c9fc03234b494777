"""On a GPU: no host synchronisation outside calibration, bad batches left out, and the same scales as on the CPU."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from bpu_qconfig import (
    ClipObserver,
    ClipStdObserver,
    FakeQuantize,
    KLObserver,
    LearnableFakeQuantize,
    MinMaxObserver,
    MixObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    MSEObserver,
    ObservationError,
    Observer,
    PACTFakeQuantize,
    PercentileObserver,
    PerChannelMinMaxObserver,
    set_fake_quantize,
)

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

KINDS = [FakeQuantize, LearnableFakeQuantize, PACTFakeQuantize]
OBSERVERS: list[type[Observer]] = [
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
    PercentileObserver,
    MSEObserver,
    KLObserver,
    MixObserver,
    ClipObserver,
    ClipStdObserver,
]


@contextmanager
def no_synchronisation() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that this mode is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("cls", KINDS)
@pytest.mark.parametrize("arguments", [{}, {"observer": MovingAveragePerChannelMinMaxObserver, "channel_len": 8}])
def test_training_step_does_not_wait_for_the_gpu(cls: type[FakeQuantize], arguments: dict[str, Any]) -> None:
    fake = cls(**arguments).cuda()
    set_fake_quantize(fake, "qat")
    x = torch.randn(8, 3, 5, 5, device="cuda", requires_grad=True)
    fake(x).sum().backward()
    with no_synchronisation():
        for _ in range(3):
            fake(x).sum().backward()


@pytest.mark.parametrize("cls", OBSERVERS)
def test_observers_do_not_wait_for_the_gpu(cls: type[Observer]) -> None:
    observer = cls().cuda()
    x = torch.randn(8, 50, device="cuda")
    observer(x)
    with no_synchronisation():
        observer(x)


@pytest.mark.parametrize("cls", OBSERVERS)
def test_statistics_equal_those_on_the_cpu(cls: type[Observer]) -> None:
    on_cpu, on_gpu = cls(), cls().cuda()
    for _ in range(3):
        x = torch.randn(8, 500)
        on_cpu(x)
        on_gpu(x.cuda())
    torch.testing.assert_close(on_gpu.min_val.cpu(), on_cpu.min_val, rtol=1e-6, atol=0.0)
    torch.testing.assert_close(on_gpu.max_val.cpu(), on_cpu.max_val, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("cls", OBSERVERS)
def test_bad_batch_is_left_out_or_refused_if_strict(cls: type[Observer]) -> None:
    observer = cls().cuda()
    observer(torch.randn(8, 50, device="cuda"))
    before = {key: value.clone() for key, value in observer.state_dict().items()}
    bad = torch.randn(8, 50, device="cuda")
    bad[3, 4] = torch.nan
    bad[5, 6] = torch.inf
    observer(bad)
    assert all(torch.equal(before[key], value) for key, value in observer.state_dict().items())
    observer.strict = True
    with pytest.raises(ObservationError, match=r"batch 3 holds NaN or infinity \(2 of 400"):
        observer(bad)


@pytest.mark.parametrize("amplitude", [0.37, 1.0, 2.9, 1e-3, 777.7])
def test_scales_and_integers_equal_those_on_the_cpu(amplitude: float) -> None:
    """Division is correctly rounded on both; a multiplication by the inverse would not be."""
    on_cpu = FakeQuantize(averaging_constant=1.0)
    on_gpu = FakeQuantize(averaging_constant=1.0).cuda()
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        x = (torch.randn(100_000) * amplitude).to(dtype)
        out = on_cpu(x)
        assert torch.equal(on_gpu(x.cuda()).cpu(), out)
        assert torch.equal(on_gpu.scale.cpu(), on_cpu.scale)


@pytest.mark.parametrize("cls", KINDS)
def test_gradients_equal_those_on_the_cpu(cls: type[FakeQuantize]) -> None:
    x = torch.randn(4, 3, 7, 5)
    gradients = []
    for device in ("cpu", "cuda"):
        fake = cls().to(device)
        fake.set_qparams(0.01)
        fake.disable_observer()
        given = x.to(device, memory_format=torch.channels_last).requires_grad_()
        fake(given).square().sum().backward()
        assert given.grad is not None
        gradients.append((given.grad.cpu(), *(p.grad.cpu() for p in fake.parameters() if p.grad is not None)))
    torch.testing.assert_close(*gradients)


def test_switches_stay_on_the_cpu() -> None:
    fake = FakeQuantize().cuda()
    assert fake.fake_quant_enabled.device.type == fake.observer_enabled.device.type == "cpu"

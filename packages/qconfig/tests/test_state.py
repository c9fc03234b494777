"""set_fake_quantize and load_observer_params."""

from __future__ import annotations

import warnings

import pytest
import torch

from bpu_qconfig import (
    FakeQuantize,
    FakeQuantState,
    FakeQuantStateWarning,
    FixedScaleObserver,
    InvalidQConfigError,
    LearnableFakeQuantize,
    MovingAveragePerChannelMinMaxObserver,
    ObservationError,
    load_observer_params,
    set_fake_quantize,
)

# state: (observes, fake-quantizes, trains)
STATES = {
    FakeQuantState.QAT: (True, True, True),
    FakeQuantState.CALIBRATION: (True, False, False),
    FakeQuantState.VALIDATION: (False, True, False),
}


class Net(torch.nn.Module):
    """Two fake quantizers, one of them nested."""

    def __init__(self, kind: type[FakeQuantize] = FakeQuantize, dtype: str = "qint8") -> None:
        super().__init__()
        self.quant = kind(FixedScaleObserver, scale=1 / 128)
        self.block = torch.nn.Sequential(torch.nn.BatchNorm1d(3), kind(dtype=dtype))

    @property
    def inner(self) -> FakeQuantize:
        inner = self.block[1]
        assert isinstance(inner, FakeQuantize)
        return inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.block(self.quant(x))
        return out


def test_values_are_the_documented_names() -> None:
    assert [state.value for state in FakeQuantState] == ["qat", "calibration", "validation"]


@pytest.mark.parametrize("state", list(FakeQuantState))
@pytest.mark.parametrize("by_name", [False, True])
def test_states_set_both_switches_of_every_fake_quantizer(state: FakeQuantState, by_name: bool) -> None:
    net = Net()
    observes, quantizes, trains = STATES[state]
    net.train(trains)
    set_fake_quantize(net, state.value if by_name else state)
    for fake in (net.quant, net.inner):
        assert bool(fake.observer_enabled) is observes
        assert bool(fake.fake_quant_enabled) is quantizes


@pytest.mark.parametrize("state", list(FakeQuantState))
def test_wrong_mode_warns_and_still_sets(state: FakeQuantState) -> None:
    net = Net()
    right = "train" if STATES[state][2] else "eval"
    net.train(right != "train")
    with pytest.warns(FakeQuantStateWarning, match=rf"{state.name} was set on a model in .*; call model\.{right}\(\)"):
        set_fake_quantize(net, state)
    assert bool(net.inner.observer_enabled) is STATES[state][0]


def test_warning_points_to_the_callers_line() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        set_fake_quantize(Net().eval(), FakeQuantState.QAT)
    assert [warning.filename for warning in caught] == [__file__]


def test_model_without_fake_quantizers_warns() -> None:
    with pytest.warns(FakeQuantStateWarning, match="no fake quantizers, so QAT changes nothing; prepare it first"):
        set_fake_quantize(torch.nn.Linear(1, 1), "qat")


def test_unknown_state_lists_the_known() -> None:
    with pytest.raises(InvalidQConfigError, match="'qat', 'calibration', 'validation', got 'test'"):
        set_fake_quantize(Net(), "test")


def test_observers_learn_their_paths_once() -> None:
    net = Net()
    net.quant.activation_post_process.path = "mine"
    set_fake_quantize(net.eval(), "calibration")
    assert net.quant.activation_post_process.path == "mine"
    with pytest.raises(ObservationError, match=r"^block\.1: batch 1 holds NaN"):
        net.inner(torch.tensor([[float("nan")]]))


def test_observers_are_strict_in_calibration_only() -> None:
    net = Net()
    set_fake_quantize(net.eval(), "calibration")
    assert net.inner.activation_post_process.strict
    set_fake_quantize(net.train(), "qat")
    assert not net.inner.activation_post_process.strict


def calibrated(**arguments: str) -> Net:
    net = Net(**arguments)  # type: ignore[arg-type]
    set_fake_quantize(net.eval(), "calibration")
    net(torch.randn(16, 3))
    return net


def test_parameters_are_copied_to_another_kind() -> None:
    source, target = calibrated(), Net(LearnableFakeQuantize)
    report = load_observer_params(source, target)
    assert report.copied == ("block.1",)
    assert report.skipped == (("quant", "its scale is fixed at [0.0078125]"),)
    assert str(report) == "copied 1, left 1 as they were\n  quant: its scale is fixed at [0.0078125]"
    assert torch.equal(target.inner.scale, source.inner.scale)
    target(torch.randn(16, 3) * 50)
    assert torch.equal(target.inner.scale, source.inner.scale)


def test_model_state_dict_carries_the_same() -> None:
    source, target = calibrated(), Net(LearnableFakeQuantize)
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.inner.scale, source.inner.scale)


def test_another_dtype_keeps_the_range() -> None:
    source, target = calibrated(), Net(dtype="qint16")
    load_observer_params(source, target)
    torch.testing.assert_close(
        target.inner.activation_post_process.amplitude(), source.inner.activation_post_process.amplitude()
    )
    torch.testing.assert_close(target.inner.scale * 65535, source.inner.scale * 255)


def per_channel(channels: int) -> FakeQuantize:
    return FakeQuantize(MovingAveragePerChannelMinMaxObserver, channel_len=channels, ch_axis=0)


def test_what_does_not_fit_is_left_with_its_reason() -> None:
    source = torch.nn.ModuleDict({"a": per_channel(3), "b": FakeQuantize(), "c": per_channel(3)})
    for name in ("a", "c"):
        source[name](torch.randn(3, 4))
    target = torch.nn.ModuleDict({"a": per_channel(4), "b": FakeQuantize(), "c": FakeQuantize(), "d": FakeQuantize()})
    report = load_observer_params(source, target)
    assert report.copied == ()
    assert dict(report.skipped) == {
        "a": "the source has 3 channels, it has 4",
        "b": "nothing has been observed in the source",
        "c": "the source has 3 channels, it has 1",
        "d": "the source has no fake quantizer of this path",
    }


def test_per_channel_takes_over_channels_or_one_scale_for_all() -> None:
    source = torch.nn.ModuleDict({"a": per_channel(3), "b": FakeQuantize()})
    source["a"](torch.randn(3, 4))
    source["b"](torch.randn(3, 4))
    target = torch.nn.ModuleDict({"a": per_channel(1), "b": per_channel(2)})
    assert load_observer_params(source, target).skipped == ()
    a, b = target["a"], target["b"]
    assert isinstance(a, FakeQuantize)
    assert isinstance(b, FakeQuantize)
    assert torch.equal(a.scale, source["a"].scale)  # type: ignore[arg-type]
    assert torch.equal(b.scale, source["b"].scale.expand(2))  # type: ignore[operator]

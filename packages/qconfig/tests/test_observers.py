"""What all observers share: averaging, channels, dtypes, memory formats, bad batches."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bpu_qconfig import (
    ClipObserver,
    ClipStdObserver,
    FixedScaleObserver,
    InvalidQConfigError,
    KLObserver,
    MinMaxObserver,
    MixObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    MovingAveragePerTensorMinMaxObserver,
    MSEObserver,
    ObservationError,
    Observer,
    PercentileObserver,
    PerChannelMinMaxObserver,
    scale_from_range,
)

PER_CHANNEL = torch.per_channel_symmetric

OBSERVING: dict[str, type[Observer]] = {
    cls.__name__: cls
    for cls in (
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
    )
}
all_observers = pytest.mark.parametrize("cls", OBSERVING.values(), ids=OBSERVING)


def batch(*values: float) -> torch.Tensor:
    return torch.tensor(values)


def ends(observer: Observer) -> tuple[Any, Any]:
    return observer.min_val.tolist(), observer.max_val.tolist()


def test_per_tensor_name_of_the_guide_is_the_same_class() -> None:
    assert MovingAveragePerTensorMinMaxObserver is MovingAverageMinMaxObserver


@pytest.mark.parametrize("cls", [MinMaxObserver, MovingAverageMinMaxObserver])
@pytest.mark.parametrize("constant", [0.01, 0.5, 0.999])
def test_average_moves_by_the_constant_from_the_first_batch(cls: type[Observer], constant: float) -> None:
    """The average: v <- v + c * (batch - v) in float32; the first batch as it is."""
    generator = np.random.default_rng(0)
    observer = cls(averaging_constant=constant)
    low = high = np.float32(0)
    for step in range(5):
        values = generator.normal(size=64).astype(np.float32)
        observer(torch.from_numpy(values))
        c = np.float32(constant)
        low = values.min() if step == 0 else low + c * (values.min() - low)
        high = values.max() if step == 0 else high + c * (values.max() - high)
        assert ends(observer) == (low, high)


def test_constant_0_keeps_the_first_batch() -> None:
    observer = MinMaxObserver(averaging_constant=0)
    observer(batch(-1.0, 0.3))
    observer(batch(-7.0, 8.0))
    assert ends(observer) == (-1.0, pytest.approx(0.3))


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=2, max_size=6))
def test_constant_1_is_always_the_latest_batch(values: list[float]) -> None:
    observer = MinMaxObserver(averaging_constant=1)
    for value in values:
        observer(batch(value))
    assert ends(observer) == (values[-1], values[-1])


def test_constant_assigned_later_freezes_what_is_there() -> None:
    observer = MinMaxObserver(averaging_constant=1.0)
    observer(batch(-1.0, 2.0))
    observer.averaging_constant = 0.0
    observer(batch(-9.0, 9.0))
    assert ends(observer) == (-1.0, 2.0)


def test_running_extremes_only_grow() -> None:
    observer = PerChannelMinMaxObserver()
    observer(torch.tensor([[-1.0, 2.0], [3.0, 4.0]]))
    observer(torch.tensor([[0.0, 3.0], [-5.0, 1.0]]))
    assert ends(observer) == ([-1.0, -5.0], [3.0, 4.0])


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -4])
def test_per_channel_on_any_axis(axis: int) -> None:
    x = torch.randn(2, 3, 4, 5)
    observer = MovingAveragePerChannelMinMaxObserver(ch_axis=axis)
    observer(x)
    others = tuple(a for a in range(4) if a != axis % 4)
    assert ends(observer) == (x.amin(others).tolist(), x.amax(others).tolist())


def test_per_channel_of_a_vector_takes_each_element() -> None:
    observer = MovingAveragePerChannelMinMaxObserver()
    observer(batch(1.0, -2.0))
    assert ends(observer) == ([1.0, -2.0], [1.0, -2.0])


@pytest.mark.parametrize("cls", [cls for cls in OBSERVING.values() if cls is not MovingAverageMinMaxObserver])
def test_per_channel_equals_one_observer_per_channel(cls: type[Observer]) -> None:
    x = torch.randn(40, 3, 50) * torch.tensor([0.1, 1.0, 10.0])[:, None]
    whole = cls(ch_axis=1, qscheme=PER_CHANNEL)
    whole(x)
    for channel in range(3):
        single = cls(ch_axis=1, qscheme=PER_CHANNEL)
        single(x[:, channel : channel + 1])
        assert whole.min_val[channel] == single.min_val[0]
        assert whole.max_val[channel] == single.max_val[0]


@all_observers
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_input_dtypes_give_float32_statistics(cls: type[Observer], dtype: torch.dtype) -> None:
    x = torch.randn(2, 8, 5, 5).to(dtype)
    observer, reference = cls(), cls()
    assert observer(x) is x
    reference(x.to(torch.float32))
    assert observer.min_val.dtype == observer.max_val.dtype == torch.float32
    assert torch.equal(observer.min_val, reference.min_val)
    assert torch.equal(observer.max_val, reference.max_val)


@all_observers
def test_memory_format_does_not_matter(cls: type[Observer]) -> None:
    x = torch.randn(2, 8, 5, 5)
    reference = cls()
    reference(x)
    for other in (x.contiguous(memory_format=torch.channels_last), torch.randn(2, 8, 5, 10)[..., ::2].copy_(x)):
        observer = cls()
        observer(other)
        assert torch.equal(observer.min_val, reference.min_val)
        assert torch.equal(observer.max_val, reference.max_val)


@all_observers
def test_observing_ignores_autograd(cls: type[Observer]) -> None:
    x = torch.randn(4, 4, requires_grad=True)
    observer = cls()
    assert observer(x * 1.0).requires_grad
    assert not observer.min_val.requires_grad
    assert x.grad is None


BAD = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}


@all_observers
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bad_batch_is_refused_with_path_and_number_and_harms_nothing(cls: type[Observer], bad: float) -> None:
    observer = cls()
    observer.path = "layer1.conv"
    observer(torch.randn(2, 8))
    before = copy.deepcopy(observer.state_dict())
    x = torch.randn(2, 8)
    x[1, 3] = bad
    with pytest.raises(ObservationError, match=r"^layer1\.conv: batch 2 holds NaN or infinity \(1 of 16 values\)"):
        observer(x)
    assert all(torch.equal(before[key], value) for key, value in observer.state_dict().items())
    observer(torch.randn(2, 8))
    assert observer.observed


def test_path_is_unnamed_until_set() -> None:
    with pytest.raises(ObservationError, match=r"^<unnamed>: batch 1 "):
        MinMaxObserver()(batch(float("nan")))


@all_observers
def test_empty_batch_is_refused(cls: type[Observer]) -> None:
    observer = cls()
    for number, shape in enumerate([(0, 8), (8, 0)], start=1):
        with pytest.raises(ObservationError, match=rf"batch {number} is empty \(shape \[{shape[0]}, {shape[1]}\]\)"):
            observer(torch.zeros(shape))
    assert not observer.observed
    observer(torch.ones(8, 8))


def test_integer_batch_is_refused() -> None:
    with pytest.raises(ObservationError, match=r"expected a floating tensor, got torch\.int64"):
        MinMaxObserver()(torch.arange(3))


@all_observers
def test_zeros_are_observed(cls: type[Observer]) -> None:
    observer = cls()
    observer(torch.zeros(3, 4))
    assert observer.observed
    scale, zero_point = observer.calculate_qparams()
    assert (scale > 0).all()
    assert not zero_point.any()


@all_observers
def test_nothing_observed_gives_scale_1(cls: type[Observer]) -> None:
    observer = cls()
    scale, zero_point = observer.calculate_qparams()
    assert (scale.tolist(), zero_point.tolist()) == ([1.0], [0])
    assert not observer.observed


@all_observers
def test_scale_comes_from_the_range_and_nothing_else(cls: type[Observer]) -> None:
    observer = cls(dtype="qint16", quant_min=-32767)
    observer(torch.randn(3, 50))
    scale, _ = observer.calculate_qparams()
    expected = scale_from_range(observer.min_val, observer.max_val, "qint16", quant_min=-32767)
    assert torch.equal(scale, expected.reshape(-1))


def test_another_number_of_channels_is_refused() -> None:
    observer = MovingAveragePerChannelMinMaxObserver()
    observer(torch.randn(3, 4))
    with pytest.raises(InvalidQConfigError, match=r"min_val holds 3 channels, but 5 came; .*channel_len.*ch_axis"):
        observer(torch.randn(5, 4))


@all_observers
def test_copies_and_pickles_are_equal(cls: type[Observer]) -> None:
    observer = cls(averaging_constant=0.5) if cls is not PerChannelMinMaxObserver else cls()
    observer(torch.randn(3, 50))
    x = torch.randn(3, 50)
    for twin in (copy.deepcopy(observer), pickle.loads(pickle.dumps(observer))):
        twin(x)
    observer(x)
    assert torch.equal(twin.min_val, observer.min_val)
    assert torch.equal(twin.max_val, observer.max_val)


@pytest.mark.parametrize("cast", ["half", "bfloat16", "double"])
def test_statistics_stay_float32_when_the_model_is_cast(cast: str) -> None:
    observer = MinMaxObserver()
    observer(batch(0.1, 0.3))
    expected = ends(observer)
    getattr(observer, cast)()
    assert observer.min_val.dtype == torch.float32
    assert ends(observer) == expected


REFUSED: dict[str, tuple[type[Observer], dict[str, Any], str]] = {
    "affine": (MinMaxObserver, {"qscheme": torch.per_tensor_affine}, "the BPU has no zero points"),
    "constant": (MinMaxObserver, {"averaging_constant": 1.5}, "averaging_constant of 0 to 1"),
    "dtype": (MinMaxObserver, {"dtype": "quint8"}, "dtype: expected one of"),
    "quant_max": (MinMaxObserver, {"quant_max": 128}, "quant_max <= 127 for qint8"),
    "quant_min": (MinMaxObserver, {"quant_min": 0}, "quant_min < 0"),
    "factory_kwargs": (MinMaxObserver, {"factory_kwargs": {"layout": 1}}, r"got also \['layout'\]"),
    "per tensor class": (MovingAverageMinMaxObserver, {"qscheme": PER_CHANNEL}, "use MovingAveragePerChannel"),
    "per channel class": (
        MovingAveragePerChannelMinMaxObserver,
        {"qscheme": torch.per_tensor_symmetric},
        "use MovingAverageMinMaxObserver",
    ),
    "percentile": (PercentileObserver, {"percentile": 101}, "above 0 and at most 100"),
    "bins": (PercentileObserver, {"bins": 1}, "at least 2 bins"),
    "stride": (MSEObserver, {"stride": 0}, "stride of 1 to 100"),
    "update_interval": (KLObserver, {"update_interval": 0}, "at least 1"),
    "clip": (ClipObserver, {"low": 1.0, "high": 1.0}, "low < high"),
    "clip_std": (ClipStdObserver, {"deviations": 0.0}, "positive number of deviations"),
    "fixed scale": (FixedScaleObserver, {"scale": 0.0}, "positive finite scale"),
    "fixed zero point": (FixedScaleObserver, {"scale": 1.0, "zero_point": 3}, "expected zero_point 0, got 3"),
    "fixed scales": (FixedScaleObserver, {"scale": [1.0, 2.0]}, "expected one scale, got 2"),
}


@pytest.mark.parametrize(("cls", "arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_arguments_are_refused(cls: type[Observer], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidQConfigError, match=message):
        cls(**arguments)


@pytest.mark.parametrize("dtype", ["qint8", torch.int8, "torch.qint8", torch.qint8], ids=str)
def test_dtypes_by_all_names(dtype: object) -> None:
    assert str(MinMaxObserver(dtype=dtype).dtype) == "qint8"


def test_fixed_scale_ignores_what_it_sees() -> None:
    observer = FixedScaleObserver(scale=1 / 128)
    observer(batch(100.0, float("nan")))
    assert [value.tolist() for value in observer.calculate_qparams()] == [[1 / 128], [0]]
    assert ends(observer) == (-127.5 / 128, 127.5 / 128)


def test_fixed_scale_per_channel() -> None:
    observer = FixedScaleObserver(scale=torch.tensor([0.5, 0.25]), qscheme=PER_CHANNEL, ch_axis=0)
    assert observer.calculate_qparams()[0].tolist() == [0.5, 0.25]


def test_clip_cuts_each_batch_at_the_bounds() -> None:
    observer = ClipObserver(low=-1.0, high=6.0)
    observer(batch(-3.0, 2.0))
    assert ends(observer) == (-1.0, 2.0)
    unbounded = ClipObserver()
    unbounded(batch(-3.0, 2.0))
    assert ends(unbounded) == (-3.0, 2.0)


@pytest.mark.parametrize("deviations", [0.5, 1.0, 3.0])
def test_clip_std_cuts_at_deviations_from_the_mean(deviations: float) -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=10_000).astype(np.float32)
    observer = ClipStdObserver(deviations=deviations)
    observer(torch.from_numpy(values))
    wide = values.astype(np.float64)
    low = max(values.min(), wide.mean() - deviations * wide.std())
    high = min(values.max(), wide.mean() + deviations * wide.std())
    assert ends(observer) == (pytest.approx(low, rel=1e-6), pytest.approx(high, rel=1e-6))

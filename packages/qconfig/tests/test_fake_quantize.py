"""FakeQuantize: its integers, its values, its observer, its switches."""

from __future__ import annotations

import copy
import io
import pickle
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bpu_qconfig import (
    FakeQuantize,
    FixedScaleObserver,
    InvalidQConfigError,
    KLObserver,
    LearnableFakeQuantize,
    MinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    ObservationError,
    PACTFakeQuantize,
)

PER_CHANNEL: dict[str, Any] = {"observer": MovingAveragePerChannelMinMaxObserver, "ch_axis": 0}
KINDS: dict[str, type[FakeQuantize]] = {
    "fake_quant": FakeQuantize,
    "lsq": LearnableFakeQuantize,
    "pact": PACTFakeQuantize,
}
all_kinds = pytest.mark.parametrize("cls", KINDS.values(), ids=KINDS)


def with_scale(scale: float | list[float], cls: type[FakeQuantize] = FakeQuantize, **arguments: Any) -> FakeQuantize:
    """A fake quantizer of a known scale that does not observe."""
    fake = cls(**arguments)
    fake.set_qparams(scale)
    fake.disable_observer()
    return fake


def reference_integers(
    x: npt.NDArray[np.float32], scale: float, low: int = -128, high: int = 127
) -> npt.NDArray[np.float32]:
    """round-half-even of the correctly rounded float32 quotient, by numpy."""
    integers: npt.NDArray[np.float32] = np.clip(np.rint(x / np.float32(scale)), low, high).astype(np.float32)
    return integers


SCALES = [1.0, 0.5, 0.1, 1 / 128, 3e-5, 7.3]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", ["qint8", "qint16"])
def test_integers_and_values_equal_numpy(scale: float, dtype: str) -> None:
    fake = with_scale(scale, dtype=dtype)
    x = (np.random.default_rng(3).normal(size=50_000) * scale * 2**14).astype(np.float32)
    x[:500] = (np.arange(500) - 250) * np.float32(scale) / 2  # steps and exact halves of them
    expected = reference_integers(x, scale, fake.quant_min, fake.quant_max)
    assert np.array_equal(fake.quantize(torch.from_numpy(x)).numpy(), expected)
    assert np.array_equal(fake(torch.from_numpy(x)).numpy(), expected * np.float32(scale))


@pytest.mark.parametrize("scale", [0.5, 0.125, 2.0**-7])
def test_all_halves_and_integers_of_int8_round_to_even_and_clamp(scale: float) -> None:
    halves = range(-300, 301)
    x = torch.tensor([half / 2 * scale for half in halves])
    expected = [min(max(round(Fraction(half, 2)), -128), 127) for half in halves]
    assert with_scale(scale).quantize(x).tolist() == expected


@given(x=st.floats(-1000, 1000, width=32), exponent=st.integers(-8, 3))
def test_power_of_two_scales_round_the_exact_quotient(x: float, exponent: int) -> None:
    exact = Fraction(x) / Fraction(2) ** exponent
    integer = with_scale(2.0**exponent).quantize(torch.tensor([x])).item()
    assert integer == min(max(round(exact), -128), 127)


@pytest.mark.parametrize("scale", [1.0, 0.25, 2.0**-7])
def test_values_equal_torch_where_its_inverse_scale_is_exact(scale: float) -> None:
    x = torch.randn(10_000) * scale * 100
    assert torch.equal(with_scale(scale)(x), torch.fake_quantize_per_tensor_affine(x, scale, 0, -128, 127))


def test_values_equal_torch_within_one_step_of_any_scale() -> None:
    """Its kernel multiplies by the rounded inverse of the scale, which tips a tie now and then."""
    x = torch.randn(100_000) * 5
    ours, theirs = with_scale(0.0421)(x), torch.fake_quantize_per_tensor_affine(x, 0.0421, 0, -128, 127)
    assert (ours - theirs).abs().max() <= 0.0422
    assert (ours != theirs).float().mean() < 1e-3


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_per_channel_equals_per_tensor_on_each_channel(axis: int) -> None:
    x = torch.randn(3, 3, 4, 3)
    scales = [0.01, 0.02, 0.5]
    fake = with_scale(scales, observer=MovingAveragePerChannelMinMaxObserver, ch_axis=axis, channel_len=3)
    out = fake(x)
    for channel, scale in enumerate(scales):
        part = x.select(axis, channel)
        assert torch.equal(out.select(axis, channel), with_scale(scale)(part))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_other_dtypes_keep_theirs_and_divide_in_float32_or_better(dtype: torch.dtype) -> None:
    x = torch.randn(1000).to(dtype)
    fake = with_scale(0.013)
    wide = x if dtype == torch.float64 else x.float()
    integers = (wide / torch.tensor(0.013).to(wide.dtype)).round().clamp(-128, 127)
    assert fake.quantize(x).dtype == fake(x).dtype == dtype
    assert torch.equal(fake.quantize(x).to(wide.dtype), integers)
    assert torch.equal(fake(x), (integers * torch.tensor(0.013).to(wide.dtype)).to(dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_integers_that_a_dtype_cannot_hold_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(InvalidQConfigError, match=r"qint16 needs 32768; give float32"):
        with_scale(0.1, dtype="qint16").quantize(torch.zeros(1, dtype=dtype))


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 3, 4, 5, 6)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    assert with_scale(0.1)(torch.zeros(shape)).shape == shape


def test_channels_last_stays_channels_last() -> None:
    x = torch.randn(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    out = with_scale(0.1)(x)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(out, with_scale(0.1)(x.contiguous()))


@all_kinds
def test_straight_through_returns_exactly_q_times_scale(cls: type[FakeQuantize]) -> None:
    """The caller's integers enter the value, not those of ``quantize``."""
    fake = with_scale(0.1, cls)
    q = torch.tensor([3.0, -4.0, 127.0])
    x = torch.tensor([100.0, 0.3, 0.0], requires_grad=True)
    assert torch.equal(fake.straight_through(x, q), q * fake.scale)


@all_kinds
def test_observing_sets_the_scale_of_the_range(cls: type[FakeQuantize]) -> None:
    fake = cls(averaging_constant=1.0)
    fake(torch.tensor([-2.55, 1.0]))
    assert fake.scale.tolist() == [np.float32(2 * np.float32(2.55) / np.float32(255))]


def test_disabled_fake_quant_returns_the_input_itself() -> None:
    fake = FakeQuantize()
    fake.disable_fake_quant()
    x = torch.randn(3)
    assert fake(x) is x
    assert fake.activation_post_process.batches == 1
    fake.enable_fake_quant()
    assert fake(x) is not x


def test_disabled_observer_leaves_the_scale() -> None:
    fake = FakeQuantize()
    fake.disable_observer()
    fake(torch.randn(3))
    assert fake.scale.tolist() == [1.0]
    fake.enable_observer()
    fake(torch.randn(3))
    assert fake.scale.tolist() != [1.0]


def test_switches_are_cpu_tensors_and_no_buffers() -> None:
    with torch.device("meta"):
        fake = FakeQuantize()
    for switch in (fake.fake_quant_enabled, fake.observer_enabled):
        assert (switch.device.type, switch.dtype, list(switch.shape)) == ("cpu", torch.uint8, [1])
    assert set(fake.state_dict()) == {
        "scale",
        "zero_point",
        "activation_post_process.min_val",
        "activation_post_process.max_val",
    }


def test_switch_may_be_written_like_a_tensor() -> None:
    fake = FakeQuantize()
    fake.fake_quant_enabled[0] = 0
    x = torch.randn(3)
    assert fake(x) is x


def test_train_and_eval_change_nothing() -> None:
    fake = FakeQuantize(averaging_constant=1.0)
    x = torch.randn(100)
    assert torch.equal(fake.train()(x), fake.eval()(x))
    fake.eval()(x * 2)
    assert fake.activation_post_process.max_val == (x * 2).max()


def test_set_qparams_sticks_with_constant_0() -> None:
    for scale in (0.1, 1 / 3, 0.007, 123.4):
        fake = FakeQuantize(averaging_constant=0)
        fake.set_qparams(scale)
        fake(torch.randn(10) * 100)
        assert fake.scale.tolist() == [np.float32(scale)]


def test_set_qparams_is_where_averaging_goes_on() -> None:
    fake = FakeQuantize(averaging_constant=0.5)
    fake.set_qparams(1.0)
    fake(torch.tensor([255.0]))
    assert fake.scale.tolist() == [1.5]


def test_set_qparams_is_replaced_with_constant_1() -> None:
    fake = FakeQuantize(averaging_constant=1)
    fake.set_qparams(1.0)
    fake(torch.tensor([255.0]))
    assert fake.scale.tolist() == [2.0]


def test_set_qparams_before_and_after_the_first_tensor_of_a_per_channel_quantizer() -> None:
    fake = FakeQuantize(**PER_CHANNEL, channel_len=3)
    fake.set_qparams(0.5)
    assert fake.scale.tolist() == [0.5] * 3
    fake.set_qparams([0.1, 0.2, 0.3], zero_point=[0, 0, 0])
    assert fake.calculate_qparams()[0].tolist() == pytest.approx([0.1, 0.2, 0.3])
    with pytest.raises(InvalidQConfigError, match="scale holds 3 channels, but 2 came"):
        fake.set_qparams([0.1, 0.2])


@pytest.mark.parametrize("zero_point", [1, [0, 1], torch.tensor(-1)], ids=str)
def test_set_qparams_refuses_zero_points(zero_point: Any) -> None:
    with pytest.raises(InvalidQConfigError, match="expected zero_point 0"):
        FakeQuantize().set_qparams(1.0, zero_point)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_set_qparams_refuses_scales_that_are_not_positive(scale: float) -> None:
    fake = FakeQuantize()
    with pytest.raises(InvalidQConfigError, match="positive finite"):
        fake.set_qparams(scale)
    assert fake.scale.tolist() == [1.0]


@all_kinds
def test_fixed_scale_stays_whatever_comes(cls: type[FakeQuantize]) -> None:
    fake = cls(observer=FixedScaleObserver, scale=1 / 128)
    assert fake.fixed
    out = fake(torch.randn(100, requires_grad=True) * 100)
    out.sum().backward()
    assert fake.scale.tolist() == [1 / 128]
    assert list(fake.parameters()) == []
    fake.set_qparams(0.5)
    fake(torch.randn(3))
    assert fake.scale.tolist() == [0.5]


def test_fixed_scales_per_channel() -> None:
    fake = FakeQuantize(FixedScaleObserver, scale=[0.5, 0.25], qscheme=torch.per_channel_symmetric, ch_axis=0)
    assert fake(torch.tensor([[0.3], [0.3]])).tolist() == [[0.5], [0.25]]
    one = FakeQuantize(FixedScaleObserver, channel_len=3, scale=0.5, qscheme=torch.per_channel_symmetric, ch_axis=0)
    assert one(torch.full((3, 2), 0.3)).tolist() == [[0.5, 0.5]] * 3


@all_kinds
def test_channel_len_left_at_1_becomes_that_of_the_first_tensor(cls: type[FakeQuantize]) -> None:
    fake = cls(**PER_CHANNEL)
    parameters = list(fake.parameters())
    weight = torch.randn(5, 3)
    out = fake(weight)
    assert fake.scale.shape == fake.zero_point.shape == (5,)
    assert all(new is old for new, old in zip(fake.parameters(), parameters, strict=True))
    assert torch.equal(out, cls(**PER_CHANNEL, channel_len=5)(weight))


def test_channel_len_that_does_not_fit_is_refused() -> None:
    fake = FakeQuantize(**PER_CHANNEL, channel_len=4)
    with pytest.raises(InvalidQConfigError, match="holds 4 channels, but 5 came; give the number of channels"):
        fake(torch.randn(5, 3))
    fake.disable_observer()
    with pytest.raises(InvalidQConfigError, match=r"expected 4 channels on axis 0, got a tensor of shape \[5, 3\]"):
        fake(torch.randn(5, 3))


def test_channel_len_means_nothing_per_tensor() -> None:
    assert FakeQuantize(channel_len=64).scale.shape == (1,)


def test_unknown_observer_arguments_are_refused_with_the_known() -> None:
    with pytest.raises(InvalidQConfigError, match=r"MinMaxObserver: .*'bins'; it takes \(averaging_constant"):
        FakeQuantize(observer=MinMaxObserver, bins=3)


def test_observer_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidQConfigError, match=r"derived from bpu_qconfig\.Observer"):
        FakeQuantize(observer=torch.nn.Identity)  # type: ignore[arg-type]


def test_observer_may_be_a_partial_itself() -> None:
    fake = FakeQuantize(observer=MinMaxObserver.with_args(averaging_constant=0.25), dtype="qint16")
    assert fake.activation_post_process.averaging_constant == 0.25
    assert str(fake.dtype) == "qint16"


def test_bad_batch_is_refused_and_harms_nothing() -> None:
    fake = FakeQuantize()
    fake(torch.ones(3))
    before = fake.scale.clone()
    with pytest.raises(ObservationError, match="batch 2 holds NaN"):
        fake(torch.tensor([float("nan")]))
    assert torch.equal(fake.scale, before)


def test_scale_stays_1_until_an_observer_has_a_range() -> None:
    fake = FakeQuantize(observer=KLObserver, update_interval=2)
    fake(torch.randn(5))
    assert fake.scale.tolist() == [1.0]
    fake(torch.randn(5))
    assert fake.scale.tolist() != [1.0]


@pytest.mark.parametrize("kind", ["plain", "grad", "parameter", "bfloat16"])
def test_in_place_reuses_memory_only_where_legal(kind: str) -> None:
    fake = with_scale(0.1, in_place=True)
    x = torch.randn(16)
    expected = with_scale(0.1)(x.bfloat16() if kind == "bfloat16" else x)
    given_x = {
        "plain": x.clone(),
        "grad": x.clone().requires_grad_(),
        "parameter": torch.nn.Parameter(x.clone(), requires_grad=False),
        "bfloat16": x.bfloat16(),
    }[kind]
    before = given_x.detach().clone()
    out = fake(given_x)
    assert torch.equal(out, expected)
    assert (out.data_ptr() == given_x.data_ptr()) is (kind == "plain")
    assert kind == "plain" or torch.equal(given_x.detach(), before)


def test_in_place_keeps_the_gradient_of_a_learned_scale() -> None:
    fake = with_scale(0.1, LearnableFakeQuantize, in_place=True)
    fake(torch.randn(16)).sum().backward()
    assert fake.scale.grad is not None


@all_kinds
@pytest.mark.parametrize("cast", ["half", "bfloat16", "double"])
def test_scale_stays_float32_when_the_model_is_cast(cls: type[FakeQuantize], cast: str) -> None:
    fake = with_scale(0.1, cls)
    before = fake.scale.detach().clone()
    getattr(torch.nn.Sequential(fake), cast)()
    assert fake.scale.dtype == torch.float32
    assert torch.equal(fake.scale.detach(), before)
    assert fake.zero_point.dtype == torch.int64


@all_kinds
def test_repr_has_the_documented_fields_in_order(cls: type[FakeQuantize]) -> None:
    assert (
        "fake_quant_enabled=tensor([1], dtype=torch.uint8), observer_enabled=tensor([1], dtype=torch.uint8), "
        "quant_min=-128, quant_max=127, dtype=qint8, qscheme=torch.per_channel_symmetric, ch_axis=0, "
        "scale=tensor([1., 1.]), zero_point=tensor([0, 0])"
    ) in repr(cls(**PER_CHANNEL, dtype="qint8", channel_len=2))


def test_activation_shows_ch_axis_minus_1() -> None:
    assert FakeQuantize(ch_axis=0).ch_axis == -1


@all_kinds
def test_copies_and_pickles_go_on_alike(cls: type[FakeQuantize]) -> None:
    fake = cls(averaging_constant=0.5)
    fake(torch.randn(50))
    stored = io.BytesIO()
    torch.save(fake, stored)
    stored.seek(0)
    loaded = torch.load(stored, weights_only=False)
    x = torch.randn(50)
    expected = copy.deepcopy(fake)(x)
    assert torch.equal(pickle.loads(pickle.dumps(fake))(x), expected)
    assert torch.equal(loaded(x), expected)
    twin = copy.deepcopy(fake)
    twin.disable_fake_quant()
    assert bool(fake.fake_quant_enabled)

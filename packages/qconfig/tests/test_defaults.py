"""Predefined qconfigs and builders, against the documented table and signatures."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

import bpu_qconfig
from bpu_kernels.dtypes import quant_dtype
from bpu_qconfig import (
    FAKE_QUANTS,
    OBSERVERS,
    FakeQuantize,
    InvalidQConfigError,
    LearnableFakeQuantize,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PercentileObserver,
    QConfig,
    get_default_calib_qconfig,
    get_default_qat_out_qconfig,
    get_default_qat_qconfig,
    get_default_qconfig,
)

REQUIRED = inspect.Parameter.empty
TENSOR, CHANNEL = torch.per_tensor_symmetric, torch.per_channel_symmetric
COMMON = {
    "averaging_constant": 0.01,
    "ch_axis": -1,
    "dtype": "qint8",
    "qscheme": TENSOR,
    "quant_min": None,
    "quant_max": None,
    "is_sync_quantize": False,
    "factory_kwargs": None,
}
DOCUMENTED: dict[str, dict[str, Any]] = {
    "FakeQuantize": {
        "observer": MovingAverageMinMaxObserver,
        "saturate": None,
        "in_place": False,
        "compat_mask": True,
        "channel_len": 1,
    },
    "MovingAverageMinMaxObserver": {name: value for name, value in COMMON.items() if name != "ch_axis"},
    "MovingAveragePerChannelMinMaxObserver": {**COMMON, "ch_axis": 0, "qscheme": CHANNEL},
    "MinMaxObserver": COMMON,
    "PercentileObserver": {"percentile": 99.99, "bins": 2048, **COMMON},
    "MSEObserver": {"stride": 1, **COMMON},
    "KLObserver": {"bins": 512, "update_interval": 1, **COMMON},
    "MixObserver": COMMON,
    "FixedScaleObserver": {"scale": REQUIRED, "zero_point": 0, "dtype": "qint8", "qscheme": TENSOR, "ch_axis": -1},
    "get_default_qconfig": {
        "activation_fake_quant": "fake_quant",
        "weight_fake_quant": "fake_quant",
        "activation_observer": "min_max",
        "weight_observer": "min_max",
        "activation_qkwargs": None,
        "weight_qkwargs": None,
    },
    "get_default_qat_qconfig": {
        "dtype": "qint8",
        "weight_dtype": "qint8",
        "activation_fake_quant": "fake_quant",
        "weight_fake_quant": "fake_quant",
        "activation_qkwargs": None,
        "weight_qkwargs": None,
        "backend": "",
    },
    "get_default_qat_out_qconfig": {
        "dtype": "qint8",
        "weight_fake_quant": "fake_quant",
        "weight_qkwargs": None,
        "backend": "",
    },
    "get_default_calib_qconfig": {"dtype": "qint8", "calib_qkwargs": None, "backend": ""},
    "set_fake_quantize": {"model": REQUIRED, "state": REQUIRED},
    "load_observer_params": {"src": REQUIRED, "dst": REQUIRED},
    "set_march": {"march": REQUIRED},
    "get_march": {},
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_signature_begins_with_the_documented_arguments_and_defaults(name: str) -> None:
    parameters = list(inspect.signature(getattr(bpu_qconfig, name)).parameters.values())
    documented = DOCUMENTED[name]
    assert {p.name: p.default for p in parameters[: len(documented)]} == documented
    assert [p.name for p in parameters[: len(documented)]] == list(documented)
    further = [p for p in parameters[len(documented) :] if p.kind is not inspect.Parameter.VAR_KEYWORD]
    assert all(p.default is not REQUIRED for p in further)


PER_TENSOR: dict[str, Any] = {}
W: dict[str, Any] = {"qscheme": CHANNEL, "ch_axis": 0}
OUT = (None, (FakeQuantize, MovingAveragePerChannelMinMaxObserver, "qint8", W))
# name: (activation, weight), each None or (fake quantizer, observer, dtype, further arguments)
PREDEFINED: dict[str, tuple[Any, Any]] = {
    "default_qat_8bit_fake_quant_qconfig": ((FakeQuantize, MovingAverageMinMaxObserver, "qint8", {}), OUT[1]),
    "default_qat_out_8bit_fake_quant_qconfig": OUT,
    "default_qat_8bit_weight_32bit_out_fake_quant_qconfig": OUT,
    "default_calib_8bit_fake_quant_qconfig": ((FakeQuantize, PercentileObserver, "qint8", {}), OUT[1]),
    "default_calib_out_8bit_fake_quant_qconfig": OUT,
    "default_calib_8bit_weight_32bit_out_fake_quant_qconfig": OUT,
    "default_qat_8bit_weight_16bit_act_fake_quant_qconfig": (
        (FakeQuantize, MovingAverageMinMaxObserver, "qint16", {}),
        OUT[1],
    ),
    "default_calib_8bit_weight_16bit_act_fake_quant_qconfig": (
        (FakeQuantize, PercentileObserver, "qint16", {}),
        OUT[1],
    ),
    "default_qat_8bit_lsq_quant_qconfig": (
        (LearnableFakeQuantize, MovingAverageMinMaxObserver, "qint8", {"averaging_constant": 1.0}),
        (LearnableFakeQuantize, MovingAveragePerChannelMinMaxObserver, "qint8", {**W, "averaging_constant": 1.0}),
    ),
    "per_channel_qat_8bit_qconfig": ((FakeQuantize, MovingAverageMinMaxObserver, "qint8", {}), OUT[1]),
}


@pytest.mark.parametrize("name", PREDEFINED)
def test_predefined_qconfig_is_the_documented_one(name: str) -> None:
    qconfig: QConfig = getattr(bpu_qconfig, name)
    for factory, expected in zip((qconfig.activation, qconfig.weight), PREDEFINED[name], strict=True):
        if expected is None:
            assert factory is None
            continue
        assert factory is not None
        cls, observer, dtype, arguments = expected
        fake = factory(channel_len=4)
        assert type(fake) is cls
        assert type(fake.activation_post_process) is observer
        assert fake.dtype is quant_dtype(dtype)
        for field, value in {"qscheme": TENSOR, "ch_axis": -1, "averaging_constant": 0.01, **arguments}.items():
            assert getattr(fake.activation_post_process, field) == value
        if cls is LearnableFakeQuantize:
            assert fake.use_grad_scaling


def test_names_of_the_high_precision_output_are_one_object() -> None:
    out = bpu_qconfig.default_qat_out_8bit_fake_quant_qconfig
    assert bpu_qconfig.default_qat_8bit_weight_32bit_out_fake_quant_qconfig is out
    assert bpu_qconfig.default_calib_out_8bit_fake_quant_qconfig is out
    assert bpu_qconfig.default_calib_8bit_weight_32bit_out_fake_quant_qconfig is out


def test_defaults_build_the_default_qconfig() -> None:
    assert get_default_qconfig() == bpu_qconfig.default_qat_8bit_fake_quant_qconfig


ACTIVATION_OBSERVERS = ("min_max", "fixed_scale", "clip", "percentile", "clip_std", "mse", "kl", "mix")
WEIGHT_OBSERVERS = ("min_max", "fixed_scale", "clip", "percentile", "clip_std", "mse")


@pytest.mark.parametrize("fake_quant", FAKE_QUANTS)
@pytest.mark.parametrize("observer", ACTIVATION_OBSERVERS)
def test_every_activation_name_makes_its_observer(fake_quant: str, observer: str) -> None:
    qkwargs = {"scale": 1 / 128} if observer == "fixed_scale" else None
    factory = get_default_qconfig(fake_quant, activation_observer=observer, activation_qkwargs=qkwargs).activation
    assert factory is not None
    fake = factory()
    assert type(fake) is FAKE_QUANTS[fake_quant]
    assert type(fake.activation_post_process) is OBSERVERS[observer]
    fake(torch.randn(2, 3))


@pytest.mark.parametrize("fake_quant", FAKE_QUANTS)
@pytest.mark.parametrize("observer", WEIGHT_OBSERVERS)
@pytest.mark.parametrize("qscheme", [TENSOR, CHANNEL], ids=["tensor", "channel"])
def test_every_weight_name_makes_its_observer(fake_quant: str, observer: str, qscheme: torch.qscheme) -> None:
    qkwargs: dict[str, Any] = {"qscheme": qscheme, **({"scale": 0.1} if observer == "fixed_scale" else {})}
    factory = get_default_qconfig(weight_fake_quant=fake_quant, weight_observer=observer, weight_qkwargs=qkwargs).weight
    assert factory is not None
    fake = factory(channel_len=2)
    assert fake.is_per_channel is (qscheme is CHANNEL)
    fake(torch.randn(2, 3))


def test_observer_class_in_qkwargs_replaces_the_name() -> None:
    factory = get_default_qconfig(activation_observer=None, activation_qkwargs={"observer": MinMaxObserver}).activation
    assert factory is not None
    assert type(factory().activation_post_process) is MinMaxObserver


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "activation_fake_quant": (
        {"activation_fake_quant": "dorefa"},
        r"activation_fake_quant: .*'pact', None\], got 'dor",
    ),
    "weight_fake_quant": ({"weight_fake_quant": "dorefa"}, "weight_fake_quant: "),
    "activation_observer": ({"activation_observer": "minmax"}, "activation_observer: expected one of .*'mix'"),
    "weight_observer": ({"weight_observer": "kl"}, r"weight_observer: .*weight_qkwargs=\{'observer': \.\.\.\}"),
    "no observer": ({"activation_observer": None}, "activation_observer: .*got None"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_unknown_names_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidQConfigError, match=message):
        get_default_qconfig(**arguments)


OLDER: dict[str, tuple[QConfig, str | None, str]] = {
    "qat": (get_default_qat_qconfig(), "qint8", "qint8"),
    "qat 16": (get_default_qat_qconfig("qint16"), "qint16", "qint8"),
    "qat bits": (get_default_qat_qconfig(bits=16, backend="bpu"), "qint16", "qint8"),
    "qat bits, backend": (get_default_qat_qconfig(8, "bpu"), "qint8", "qint8"),
    "qat names": (get_default_qat_qconfig(activation_fake_quant="lsq", weight_fake_quant="pact"), "qint8", "qint8"),
    "out": (get_default_qat_out_qconfig(), None, "qint8"),
    "calib": (get_default_calib_qconfig(), "qint8", "qint8"),
    "calib 16": (get_default_calib_qconfig("qint16", {"percentile": 99.9}), "qint16", "qint8"),
}


@pytest.mark.parametrize(("qconfig", "activation", "weight"), OLDER.values(), ids=OLDER)
def test_older_builders(qconfig: QConfig, activation: str | None, weight: str) -> None:
    assert qconfig.weight is not None
    made = qconfig.weight()
    assert (str(made.dtype), made.qscheme, made.ch_axis) == (weight, CHANNEL, 0)
    if activation is None:
        assert qconfig.activation is None
    else:
        assert qconfig.activation is not None
        assert str(qconfig.activation().dtype) == activation


def test_calib_qkwargs_tune_the_percentile() -> None:
    factory = get_default_calib_qconfig(calib_qkwargs={"percentile": 99.5, "bins": 4096}).activation
    assert factory is not None
    observer = factory().activation_post_process
    assert isinstance(observer, PercentileObserver)
    assert (observer.percentile, observer.bins) == (99.5, 4096)

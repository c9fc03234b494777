"""check_qconfig_for_march: every kind of problem, and none in the predefined qconfigs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import bpu_qconfig
from bpu_kernels.errors import UnsupportedError
from bpu_qconfig import (
    FakeQuantize,
    FixedScaleObserver,
    LearnableFakeQuantize,
    March,
    MinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PercentileObserver,
    QConfig,
    check_qconfig_for_march,
    get_default_qconfig,
)

every_march = pytest.mark.parametrize("march", list(March), ids=str)
PREDEFINED = [name for name in bpu_qconfig.__all__ if isinstance(getattr(bpu_qconfig, name), QConfig)]
SIXTEEN = [name for name in PREDEFINED if "16bit_act" in name]


@every_march
@pytest.mark.parametrize("name", [name for name in PREDEFINED if name not in SIXTEEN])
def test_predefined_qconfigs_run_on_every_march(name: str, march: March) -> None:
    assert check_qconfig_for_march(getattr(bpu_qconfig, name), march) == []


@every_march
@pytest.mark.parametrize("name", SIXTEEN)
def test_int16_activations_run_on_bayes_only(name: str, march: March) -> None:
    problems = check_qconfig_for_march(getattr(bpu_qconfig, name), march)
    if march is March.BERNOULLI2:
        (problem,) = problems
        assert str(problem) == ('activation dtype: expected qint8 on bernoulli2, got qint16; give dtype="qint8"')
        assert (problem.what, problem.got) == ("activation dtype", "qint16")
    else:
        assert problems == []


def activation(**arguments: Any) -> QConfig:
    return QConfig(activation=FakeQuantize.with_args(**arguments), weight=None)


def weight(**arguments: Any) -> QConfig:
    return QConfig(activation=None, weight=FakeQuantize.with_args(**arguments))


# qconfig: what each problem is about, on Bayes
PROBLEMS: dict[str, tuple[QConfig, list[tuple[str, str]]]] = {
    "int16 weight": (weight(dtype="qint16"), [("weight dtype", "qint16")]),
    "int32 activation": (activation(dtype="qint32"), [("activation dtype", "qint32")]),
    "unsigned": (activation(dtype=torch.uint8), [("activation dtype", "torch.uint8")]),
    "affine activation": (
        activation(qscheme=torch.per_tensor_affine),
        [("activation qscheme", "torch.per_tensor_affine")],
    ),
    "per channel activation": (
        activation(observer=MovingAveragePerChannelMinMaxObserver),
        [("activation qscheme", "torch.per_channel_symmetric")],
    ),
    "affine weight": (weight(qscheme=torch.per_channel_affine), [("weight qscheme", "torch.per_channel_affine")]),
    "weight axis": (weight(observer=MovingAveragePerChannelMinMaxObserver, ch_axis=1), [("weight ch_axis", "1")]),
    "limits": (activation(quant_max=255), [("activation quant_min, quant_max", "-128, 255")]),
    "no negative": (weight(quant_min=0), [("weight quant_min, quant_max", "0, 127")]),
    "fixed scale": (
        activation(observer=FixedScaleObserver, scale=0.0),
        [("activation scale", "0.0")],
    ),
    "inside the observer": (
        activation(observer=MinMaxObserver.with_args(dtype="qint32")),
        [("activation dtype", "qint32")],
    ),
    "several": (
        QConfig(
            activation=LearnableFakeQuantize.with_args(dtype="qint32", qscheme=torch.per_tensor_affine),
            weight=FakeQuantize.with_args(dtype="qint16"),
        ),
        [("activation dtype", "qint32"), ("activation qscheme", "torch.per_tensor_affine"), ("weight dtype", "qint16")],
    ),
    "function": (
        QConfig(activation=None, weight=lambda: FakeQuantize(dtype="qint16")),
        [("weight dtype", "qint16")],
    ),
}


@pytest.mark.parametrize(("qconfig", "expected"), PROBLEMS.values(), ids=PROBLEMS)
def test_problems_are_found(qconfig: QConfig, expected: list[tuple[str, str]]) -> None:
    problems = check_qconfig_for_march(qconfig, "bayes")
    assert [(problem.what, problem.got) for problem in problems] == expected
    assert all(problem.expected and problem.way_out for problem in problems)


FINE: dict[str, QConfig] = {
    "class": QConfig(activation=FakeQuantize, weight=FakeQuantize),
    "per tensor weight": weight(),
    "narrow weight": weight(quant_min=-127),
    "fixed scale": activation(observer=FixedScaleObserver, scale=1 / 128),
    "calibration": get_default_qconfig(activation_observer="mse", activation_qkwargs={"stride": 10}),
    "partial observer": activation(observer=PercentileObserver.with_args(percentile=99.9)),
    "nothing": QConfig(activation=None, weight=None),
}


@every_march
@pytest.mark.parametrize("qconfig", FINE.values(), ids=FINE)
def test_qconfigs_without_problems(qconfig: QConfig, march: March) -> None:
    assert check_qconfig_for_march(qconfig, march) == []


def test_no_qconfig_has_no_problems() -> None:
    assert check_qconfig_for_march(None, "bayes") == []


def test_unknown_march_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="'bernoulli2', 'bayes', 'bayes-e'"):
        check_qconfig_for_march(None, "nash-e")

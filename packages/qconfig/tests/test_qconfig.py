"""QConfig and with_args: what they accept, how they compare and print."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

from bpu_qconfig import (
    FakeQuantize,
    InvalidQConfigError,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    MovingAveragePerTensorMinMaxObserver,
    QConfig,
    as_qconfig,
)


def test_snippet_customizing_qconfig_of_the_guide() -> None:
    activation_8bit_fake_quant = FakeQuantize.with_args(
        observer=MovingAveragePerTensorMinMaxObserver,
        dtype="qint8",
        ch_axis=0,
        averaging_constant=0,  # Custom parameter for observer
    )
    weight_8bit_fake_quant = FakeQuantize.with_args(
        observer=MovingAveragePerChannelMinMaxObserver,
        dtype="qint8",
        ch_axis=0,
        averaging_constant=1,  # Custom parameter for observer
    )
    qat_8bit_qconfig = QConfig(activation=activation_8bit_fake_quant, weight=weight_8bit_fake_quant)

    assert qat_8bit_qconfig.activation is not None
    assert qat_8bit_qconfig.weight is not None
    activation = qat_8bit_qconfig.activation()
    activation(torch.tensor([2.55]))
    activation(torch.tensor([25.5]))
    assert activation.scale.tolist() == pytest.approx([0.02])

    weight = qat_8bit_qconfig.weight(channel_len=2)
    weight(torch.tensor([[2.55], [1.0]]))
    weight(torch.tensor([[25.5], [51.0]]))
    assert weight.scale.tolist() == pytest.approx([0.2, 0.4])


def test_each_call_makes_an_independent_module() -> None:
    make = FakeQuantize.with_args(averaging_constant=0.5)
    assert make() is not make()
    assert make(averaging_constant=1.0).activation_post_process.averaging_constant == 1.0
    assert make.with_args(dtype="qint16")().activation_post_process.averaging_constant == 0.5


EQUAL: dict[str, tuple[Any, Any]] = {
    "same arguments": (FakeQuantize.with_args(a=1, b=2), FakeQuantize.with_args(b=2, a=1)),
    "chained": (FakeQuantize.with_args(a=1).with_args(b=2), FakeQuantize.with_args(a=1, b=2)),
    "tensors": (FakeQuantize.with_args(s=torch.ones(2)), FakeQuantize.with_args(s=torch.ones(2))),
    "nested": (
        FakeQuantize.with_args(observer=MinMaxObserver.with_args(ch_axis=1)),
        FakeQuantize.with_args(observer=MinMaxObserver.with_args(ch_axis=1)),
    ),
}
DIFFERENT: dict[str, tuple[Any, Any]] = {
    "value": (FakeQuantize.with_args(a=1), FakeQuantize.with_args(a=2)),
    "name": (FakeQuantize.with_args(a=1), FakeQuantize.with_args(b=1)),
    "class": (FakeQuantize.with_args(), MinMaxObserver.with_args()),
    "tensors": (FakeQuantize.with_args(s=torch.ones(2)), FakeQuantize.with_args(s=torch.zeros(2))),
    "other": (FakeQuantize.with_args(), 3),
}


@pytest.mark.parametrize(("a", "b"), EQUAL.values(), ids=EQUAL)
def test_equal_factories_are_equal_and_hash_alike(a: Any, b: Any) -> None:
    assert a == b
    assert hash(a) == hash(b)


@pytest.mark.parametrize(("a", "b"), DIFFERENT.values(), ids=DIFFERENT)
def test_different_factories_differ(a: Any, b: Any) -> None:
    assert a != b


def test_qconfig_compares_copies_and_prints_by_its_parts() -> None:
    def build() -> QConfig:
        return QConfig(activation=FakeQuantize.with_args(observer=MinMaxObserver, dtype="qint8"), weight=None)

    qconfig = build()
    assert qconfig == build()
    assert hash(qconfig) == hash(build())
    assert qconfig == copy.deepcopy(qconfig) == pickle.loads(pickle.dumps(qconfig))
    assert repr(qconfig) == (
        "QConfig(activation=FakeQuantize.with_args(observer=MinMaxObserver, dtype='qint8'), weight=None)"
    )


def test_qconfig_is_frozen() -> None:
    with pytest.raises(AttributeError):
        QConfig(activation=None, weight=None).weight = FakeQuantize  # type: ignore[misc]


REFUSED: dict[str, tuple[Any, str]] = {
    "instance": (FakeQuantize(), "an instance of FakeQuantize, which all modules would share; give the class"),
    "observer": (MinMaxObserver, r"the observer MinMaxObserver; wrap it: FakeQuantize\.with_args\(observer=MinMax"),
    "observer partial": (MovingAverageMinMaxObserver.with_args(), "the observer MovingAverageMinMaxObserver; wrap it"),
    "text": ("fake_quant", "got 'fake_quant'"),
}


@pytest.mark.parametrize("part", ["activation", "weight"])
@pytest.mark.parametrize(("value", "message"), REFUSED.values(), ids=REFUSED)
def test_qconfig_refuses(part: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidQConfigError, match=f"QConfig {part}: .*{message}"):
        QConfig(**{"activation": None, "weight": None, part: value})


def test_qconfig_takes_classes_and_functions() -> None:
    qconfig = QConfig(activation=FakeQuantize, weight=lambda **arguments: FakeQuantize(**arguments))
    assert isinstance(qconfig.weight, object)


def test_as_qconfig_passes_ours_and_none_and_refuses_others() -> None:
    qconfig = QConfig(activation=None, weight=None)
    assert as_qconfig(qconfig) is qconfig
    assert as_qconfig(None) is None
    with pytest.raises(InvalidQConfigError, match="expected a QConfig or None, got 'qat'"):
        as_qconfig("qat")

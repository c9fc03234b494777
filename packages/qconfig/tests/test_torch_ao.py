"""Qconfigs of torch.ao.quantization: what passes, what is translated, what is refused."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from bpu_qconfig import (
    FakeQuantize,
    FixedScaleObserver,
    InvalidQConfigError,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
    QConfig,
    as_qconfig,
    default_qat_8bit_fake_quant_qconfig,
)

tq: Any = pytest.importorskip("torch.ao.quantization")

TENSOR, CHANNEL = torch.per_tensor_symmetric, torch.per_channel_symmetric
SYMMETRIC = {"dtype": torch.qint8, "qscheme": TENSOR}


def translated(factory: Any) -> Any:
    qconfig = as_qconfig(tq.QConfig(activation=factory, weight=torch.nn.Identity))
    assert qconfig is not None
    assert qconfig.weight is None
    return qconfig.activation


def test_our_factories_inside_torchs_qconfig_pass_through() -> None:
    ours = default_qat_8bit_fake_quant_qconfig
    assert as_qconfig(tq.QConfig(activation=ours.activation, weight=ours.weight)) == ours


def test_usual_qat_qconfig_of_torch() -> None:
    given = tq.QConfig(
        activation=tq.FakeQuantize.with_args(
            observer=tq.MovingAverageMinMaxObserver, quant_min=-128, quant_max=127, reduce_range=False, **SYMMETRIC
        ),
        weight=tq.default_per_channel_weight_fake_quant,
    )
    assert as_qconfig(given) == QConfig(
        activation=FakeQuantize.with_args(
            observer=MovingAverageMinMaxObserver, quant_min=-128, quant_max=127, **{**SYMMETRIC, "dtype": qint8()}
        ),
        weight=FakeQuantize.with_args(
            observer=MovingAveragePerChannelMinMaxObserver,
            quant_min=-128,
            quant_max=127,
            dtype=qint8(),
            qscheme=CHANNEL,
            ch_axis=0,
        ),
    )


def qint8() -> object:
    return FakeQuantize().dtype


TRANSLATED: dict[str, tuple[Any, Any]] = {
    "bare observer": (
        tq.MovingAverageMinMaxObserver.with_args(averaging_constant=0.1, **SYMMETRIC),
        FakeQuantize.with_args(
            observer=MovingAverageMinMaxObserver, averaging_constant=0.1, dtype=qint8(), qscheme=TENSOR
        ),
    ),
    "partial observer": (
        tq.FakeQuantize.with_args(
            observer=tq.PerChannelMinMaxObserver.with_args(ch_axis=1), dtype=torch.qint8, qscheme=CHANNEL
        ),
        FakeQuantize.with_args(observer=PerChannelMinMaxObserver, ch_axis=1, dtype=qint8(), qscheme=CHANNEL),
    ),
    "fused": (
        tq.FusedMovingAvgObsFakeQuantize.with_args(
            observer=tq.MovingAverageMinMaxObserver, quant_min=-128, quant_max=127, eps=2**-12, **SYMMETRIC
        ),
        FakeQuantize.with_args(
            observer=MovingAverageMinMaxObserver, quant_min=-128, quant_max=127, dtype=qint8(), qscheme=TENSOR
        ),
    ),
    "fixed": (
        tq.FakeQuantize.with_args(observer=tq.FixedQParamsObserver, scale=1 / 128, zero_point=0, **SYMMETRIC),
        FakeQuantize.with_args(observer=FixedScaleObserver, scale=1 / 128, dtype=qint8(), qscheme=TENSOR),
    ),
    "noop": (tq.NoopObserver, None),
    "identity": (torch.nn.Identity, None),
    "ours": (FakeQuantize, FakeQuantize),
}


@pytest.mark.parametrize(("given", "expected"), TRANSLATED.values(), ids=TRANSLATED)
def test_factories_are_translated(given: Any, expected: Any) -> None:
    got = translated(given)
    assert got == expected
    if got is not None:
        got(channel_len=1)


def test_translated_scale_equals_torchs() -> None:
    theirs = tq.FakeQuantize.with_args(
        observer=tq.MovingAverageMinMaxObserver, quant_min=-128, quant_max=127, **SYMMETRIC
    )
    reference, ours = theirs(), translated(theirs)()
    for _ in range(3):
        x = torch.randn(100)
        reference(x)
        ours(x)
    torch.testing.assert_close(ours.scale, reference.scale, rtol=2e-7, atol=0.0)


REFUSED: dict[str, tuple[Any, str]] = {
    "affine": (tq.default_fake_quant, "FakeQuantize|MovingAverageMinMaxObserver.*"),
    "no dtype": (
        tq.FakeQuantize.with_args(observer=tq.MovingAverageMinMaxObserver, qscheme=TENSOR),
        r"activation: MovingAverageMinMaxObserver of torch\.ao: .*torch\.quint8; give dtype=torch\.qint8",
    ),
    "no scheme": (
        tq.FakeQuantize.with_args(observer=tq.MovingAverageMinMaxObserver, dtype=torch.qint8),
        r"expected a symmetric qscheme, got an affine one; give qscheme=torch\.per_tensor_symmetric",
    ),
    "histogram": (tq.HistogramObserver.with_args(**SYMMETRIC), r"torch\.ao's HistogramObserver has no counterpart"),
    "running extremes": (tq.MinMaxObserver.with_args(**SYMMETRIC), r"torch\.ao's MinMaxObserver has no counterpart"),
    "reduce_range": (
        tq.MovingAverageMinMaxObserver.with_args(reduce_range=True, **SYMMETRIC),
        r"MovingAverageMinMaxObserver\(reduce_range=True\) of torch\.ao has no counterpart; leave it out",
    ),
    "zero point": (
        tq.FixedQParamsObserver.with_args(scale=0.1, zero_point=128, **SYMMETRIC),
        r"FixedQParamsObserver\(zero_point=128\)",
    ),
    "text": ("qat", "got 'qat'"),
}


@pytest.mark.parametrize(("given", "message"), REFUSED.values(), ids=REFUSED)
def test_factories_without_counterpart_are_refused(given: Any, message: str) -> None:
    with pytest.raises(InvalidQConfigError, match=message):
        translated(given)


def test_importing_and_using_the_package_does_not_import_torch_ao_by_itself() -> None:
    code = (
        "import sys, torch; before = set(sys.modules); import bpu_qconfig; "
        "bpu_qconfig.get_default_qconfig().activation(); "
        "new = {name for name in set(sys.modules) - before if '.quantization' in name and name.startswith('torch.')}; "
        "assert not new, new"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

"""The guide's chapter "Customizing qconfig"."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import nn

from horizon_plugin_pytorch.dtype import qint8
from horizon_plugin_pytorch.quantization import (
    FakeQuantState,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    QuantStub,
    prepare_qat_fx,
    set_fake_quantize,
)


def test_customized_qconfig_is_read_as_written(run_script: Callable[[str], ModuleType]) -> None:
    qconfig = run_script("custom_qconfig").qat_8bit_qconfig

    activation, weight = qconfig.activation(), qconfig.weight(channel_len=8)

    assert type(activation.activation_post_process) is MovingAverageMinMaxObserver
    assert type(weight.activation_post_process) is MovingAveragePerChannelMinMaxObserver
    assert activation.dtype is weight.dtype is qint8
    assert activation.scale.shape == (1,)
    assert weight.scale.shape == (8,)
    assert activation.activation_post_process.averaging_constant == 0
    assert weight.activation_post_process.averaging_constant == 1


def test_customized_averaging_constants_freeze_activations_and_follow_weights(
    run_script: Callable[[str], ModuleType],
) -> None:
    model = nn.Sequential(QuantStub(), nn.Conv2d(3, 4, 1))
    prepared = prepare_qat_fx(model.train(), {"": run_script("custom_qconfig").qat_8bit_qconfig})
    set_fake_quantize(prepared, FakeQuantState.QAT)
    conv: Any = prepared.get_submodule("1")

    def scales_after(batch: torch.Tensor) -> tuple[float, float]:
        prepared(batch)
        return float(conv.activation_post_process.scale), float(conv.weight_fake_quant.scale.max())

    first = scales_after(torch.randn(1, 3, 4, 4))
    with torch.no_grad():
        conv.weight.mul_(2)
    second = scales_after(torch.randn(1, 3, 4, 4) * 5)

    assert second[0] == first[0]
    assert second[1] == 2 * first[1]

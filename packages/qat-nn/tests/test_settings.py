"""Settings changed between calls: a model, converted or not, computes with them at once, or refuses the change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_qat_nn import ArgumentError, ObservedGraphModule, convert_fx
from bpu_qat_nn.testing import CASES, OperatorCase, calibrate, differing, prepared, real_inputs

MAP = (2, 8, 10, 12)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """An attribute of an operator that can be changed, and the float model that has the new value from the start."""

    make: Callable[[Any], nn.Module]
    name: str
    values: tuple[Any, Any]
    path: str = "body"
    shapes: tuple[tuple[int, ...], ...] = (MAP,)


def conv(**options: Any) -> nn.Module:
    return nn.Conv2d(8, 8, 3, **options)


class Filled(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return x.masked_fill(x > 0.5, self.value)


class Padded(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (1, 2, 1, 0), value=self.value)


SETTINGS: dict[str, Setting] = {
    "convolution, stride": Setting(make=lambda v: conv(stride=v), name="stride", values=((1, 1), (2, 1))),
    "convolution, padding": Setting(make=lambda v: conv(padding=v), name="padding", values=((0, 0), (1, 2))),
    "convolution, dilation": Setting(make=lambda v: conv(dilation=v), name="dilation", values=((1, 1), (2, 2))),
    "convolution, dilation in phases": Setting(
        make=lambda v: conv(padding=16, dilation=v), name="dilation", values=((1, 1), (18, 18))
    ),
    "convolution in three dimensions, stride": Setting(
        make=lambda v: nn.Conv3d(4, 6, 3, v, 1),
        name="stride",
        values=((1, 1, 1), (1, 2, 2)),
        shapes=((1, 4, 5, 6, 7),),
    ),
    "transposed convolution, output padding": Setting(
        make=lambda v: nn.ConvTranspose2d(8, 6, 4, 2, 1, v), name="output_padding", values=((0, 0), (1, 1))
    ),
    "transposed convolution, padding": Setting(
        make=lambda v: nn.ConvTranspose2d(8, 6, 4, 4, v), name="padding", values=((0, 0), (1, 1))
    ),
    "average pooling, kernel": Setting(make=lambda v: nn.AvgPool2d(v, 2), name="kernel_size", values=(2, 3)),
    "average pooling, padding counted": Setting(
        make=lambda v: nn.AvgPool2d(3, 2, 1, count_include_pad=v), name="count_include_pad", values=(True, False)
    ),
    "average pooling, size of the output": Setting(
        make=nn.AdaptiveAvgPool2d, name="output_size", values=((1, 1), (5, 4))
    ),
    "maximum pooling, stride": Setting(make=lambda v: nn.MaxPool2d(2, v), name="stride", values=(2, 1)),
    "interpolation, mode": Setting(
        make=lambda v: nn.Upsample(scale_factor=2, mode=v), name="mode", values=("nearest", "bilinear")
    ),
    "interpolation, corners": Setting(
        make=lambda v: nn.Upsample(size=(20, 24), mode="bilinear", align_corners=v),
        name="align_corners",
        values=(False, True),
    ),
    "padding, value": Setting(make=Padded, name="value", values=(0.5, -1.0), path="body_generated_pad_0"),
    "filling, value": Setting(
        make=Filled, name="value", values=(0.25, -0.25), path="body_generated_masked_fill_0.fill"
    ),
    "leaky ReLU, slope": Setting(make=nn.LeakyReLU, name="negative_slope", values=(0.1, 0.3), path="body.function"),
    "softmax, axis": Setting(make=nn.Softmax, name="dim", values=(1, 3)),
    "gated linear unit, axis": Setting(make=nn.GLU, name="dim", values=(1, 3)),
}


def calibrated(setting: Setting, value: Any, state: Any = None) -> ObservedGraphModule:
    """Return a model in VALIDATION state, with what another one has learned and observed."""
    case = OperatorCase(make=lambda: setting.make(value), shapes=setting.shapes)
    model = prepared(case.model(), "bayes")
    calibrate(model, case.shapes)
    if state is not None:
        model.load_state_dict(state)
    return model


@pytest.mark.parametrize("name", SETTINGS)
def test_changed_setting_gives_what_a_model_made_with_it_gives(name: str) -> None:
    setting = SETTINGS[name]
    inputs = real_inputs(setting.shapes, seed=7)
    model = calibrated(setting, setting.values[0])
    expected = calibrated(setting, setting.values[1], model.state_dict())(*inputs)
    for edited in (convert_fx(model), model):
        with torch.no_grad():
            before, _, _ = (edited(*inputs) for _ in range(3))
            setattr(edited.get_submodule(setting.path), setting.name, setting.values[1])
            assert before.shape != expected.shape or differing(before, expected) > 0
            for _ in range(3):
                assert differing(edited(*inputs), expected) == 0


FIXED: dict[str, tuple[str, str, str, Any]] = {
    "convolution, mode of padding": ("conv2d_3x3", "body", "padding_mode", "reflect"),
    "convolution, kernel": ("conv2d_3x3", "body", "kernel_size", (5, 5)),
    "convolution, groups": ("conv2d_grouped", "body", "groups", 2),
    "transposed convolution, dilation": ("conv_transpose2d_k2s2", "body", "dilation", (2, 2)),
    "layer norm, mean": ("layer_norm", "body", "centred", False),
    "LSTM, directions": ("lstm", "body.layer", "bidirectional", True),
    "PReLU, slopes": ("prelu", "body", "num_parameters", 4),
    "correlation, padding": ("correlation_of_points", "body.layer", "pad_size", 0),
    "quantizing, type": ("conv2d_3x3", "quant", "dtype", "qint16"),
    "linear, type": ("linear", "body", "dtype", "qint16"),
}


@pytest.mark.parametrize("name", FIXED)
def test_setting_that_weights_or_parts_depend_on_is_refused(name: str) -> None:
    case_name, path, attribute, value = FIXED[name]
    case = CASES[case_name]
    model = prepared(case.model(), "bayes")
    calibrate(model, case.shapes)
    module = convert_fx(model).get_submodule(path)
    before = getattr(module, attribute)
    with pytest.raises(ArgumentError, match=f"{path} .*: {attribute} is decided when the model is prepared"):
        setattr(module, attribute, value)
    setattr(module, attribute, before)
    assert getattr(module, attribute) == before

"""Modules that stay under QAT in a converted model: the integers are the same, and there is no Program."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bpu_fx_fusion import FloatFunctional
from bpu_qat_nn import (
    ArgumentError,
    CaptureError,
    DeQuantStub,
    QuantStub,
    convert,
    convert_fx,
    plain_module,
    prepare_calibration,
    preserved_paths,
    set_preserve_qat_mode,
)
from bpu_qat_nn.testing import calibrate, differing, prepared, real_inputs, train_steps, validate
from bpu_qat_nn.testing.classifiers import MLP, ResNet
from bpu_qconfig import default_qat_8bit_fake_quant_qconfig

SHAPES = ((2, 3, 32, 32),)
X = real_inputs(SHAPES, 5)


def qat(model: nn.Module | None = None) -> Any:
    quantized = prepared(model or ResNet().eval(), "bayes")
    calibrate(quantized, SHAPES)
    train_steps(quantized, SHAPES)
    return quantized


def test_marked_modules_stay_and_the_integers_with_them() -> None:
    model = qat()
    set_preserve_qat_mode(model, prefixes=("blocks.1", "blocks_1"))
    converted = convert_fx(model)

    assert preserved_paths(converted) == ["blocks.1.body.0", "blocks_1_generated_add_0"]
    assert differing(converted(*X), model(*X)) == 0
    set_preserve_qat_mode(model, value=False)
    assert preserved_paths(convert_fx(model)) == []


def test_all_modules_can_stay() -> None:
    model = qat()
    set_preserve_qat_mode(model)

    converted = convert_fx(model)
    assert differing(converted(*X), model(*X)) == 0
    assert differing(converted.train()(*X), model(*X)) == 0


def test_layer_with_weights_decides_for_what_is_fused_with_it() -> None:
    model = ResNet().eval()
    set_preserve_qat_mode(model, prefixes=("blocks.0.body.3", "blocks.1.body.1", "blocks.1.body.2"))

    assert preserved_paths(convert_fx(qat(model))) == ["blocks_0_generated_add_0"]


def test_mark_by_exact_class_reaches_layers_along_one_axis_too() -> None:
    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant, self.conv, self.dequant = QuantStub(), nn.Conv1d(3, 4, 3), DeQuantStub()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.dequant(self.conv(self.quant(x)))
            return y

    for net, kind, shapes, count in ((MLP, nn.Linear, ((4, 20),), 3), (Sequence, nn.Conv1d, ((2, 3, 8),), 1)):
        model = net().eval()
        set_preserve_qat_mode(model, types=(kind,))
        quantized = prepared(model, "bayes")
        calibrate(quantized, shapes)
        assert len(preserved_paths(convert_fx(quantized))) == count


def test_eager_mode_keeps_marked_modules() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant, self.conv, self.dequant = QuantStub(), nn.Conv2d(3, 3, 1), DeQuantStub()
            self.add, self.qconfig = FloatFunctional(), default_qat_8bit_fake_quant_qconfig

        def forward(self, x: Tensor) -> Tensor:
            x = self.quant(x)
            y: Tensor = self.dequant(self.add.add(self.conv(x), x))
            return y

    model: Any = prepare_calibration(Net().eval())
    model(*X)
    validate(model)
    set_preserve_qat_mode(model, prefixes=("conv", "add"))
    converted = convert(model)
    assert preserved_paths(converted) == ["conv", "add"]
    assert torch.equal(converted(*X), model(*X))


def test_training_goes_on_apart_from_the_converted_model() -> None:
    model = qat()
    set_preserve_qat_mode(model, prefixes=("stem",))
    converted = convert_fx(model)
    before = converted(*X)
    train_steps(model, SHAPES, lr=0.1)

    assert differing(converted(*X), before) == 0


def test_such_a_model_is_not_captured() -> None:
    model = qat()
    set_preserve_qat_mode(model, prefixes=("stem",))
    with pytest.raises(CaptureError, match=r"stem\.0.* stayed under QAT"):
        plain_module(convert_fx(model), *X)


def test_prefix_that_fits_nothing_is_refused() -> None:
    with pytest.raises(ArgumentError, match="no module has a path"):
        set_preserve_qat_mode(ResNet(), prefixes=("backbone",))

"""Copies, files and checkpoints: prepared and converted models survive them with the same integers."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from bpu_qat_nn import ROWS, ConvertError, ObservedGraphModule, QATMode, QTensor, convert_fx, qat_mode_scope
from bpu_qat_nn.testing import NETS, assert_exact, calibrate, differing, prepared, real_inputs, train_steps, validate
from bpu_qconfig import FakeQuantState, set_fake_quantize

CASE = NETS["resnet"]
(INPUT,) = real_inputs(CASE.shapes, seed=4)


def calibrated(mode: QATMode = QATMode.FuseBN) -> ObservedGraphModule:
    with qat_mode_scope(mode):
        model = prepared(CASE.model(), "bayes")
    calibrate(model, CASE.shapes)
    return model


def saved(value: Any) -> Any:
    """Through torch.save and torch.load."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "torch.save": saved,
}


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("stage", ["prepared", "converted"])
def test_copied_model_gives_the_same_integers(kind: str, stage: str) -> None:
    observed = calibrated()
    model = observed if stage == "prepared" else convert_fx(observed)
    expected = model(INPUT)
    copied = COPIES[kind](model)
    assert type(copied).__mro__[1] is type(model).__mro__[1]
    assert copied.march is model.march
    assert differing(copied(INPUT), expected) == 0


@pytest.mark.parametrize("mode", [QATMode.FuseBN, QATMode.WithBN], ids=lambda mode: mode.value)
def test_copied_prepared_model_can_be_trained_and_leaves_the_original_alone(mode: QATMode) -> None:
    observed = calibrated(mode)
    expected = observed(INPUT)
    copied = copy.deepcopy(observed)
    train_steps(copied, CASE.shapes, lr=0.1)
    assert differing(observed(INPUT), expected) == 0
    assert differing(copied(INPUT), expected) > 0
    assert_exact(copied, (INPUT,))


@pytest.mark.parametrize("kind", COPIES)
def test_copied_quantized_tensor_keeps_values_scale_and_type(kind: str) -> None:
    for data in (torch.tensor([1, -2, 3], dtype=torch.int16), torch.tensor([0.5, -1.0])):
        x = QTensor(data, torch.tensor([0.5]), None, "qint16")
        y = COPIES[kind](x)
        assert isinstance(y, QTensor)
        assert (y.dtype, y.on_grid, y.per_channel_axis) == (x.dtype, True, -1)
        assert torch.equal(y.int_repr(), x.int_repr())
        assert torch.equal(y.scale, x.scale)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_classes_are_found_where_pickles_look_for_them(row: Any) -> None:
    for cls in (row.qat, row.qat.quantized):
        assert pickle.loads(pickle.dumps(cls)) is cls


def test_state_dict_has_equal_keys_in_calibration_and_training() -> None:
    model = calibrated()
    calibration = model.state_dict().keys()
    model.train()
    set_fake_quantize(model, FakeQuantState.QAT)
    model(INPUT)
    assert model.state_dict().keys() == calibration


def test_training_goes_on_from_a_calibration_checkpoint() -> None:
    first = calibrated()
    second = prepared(CASE.model(), "bayes")
    second.load_state_dict(saved(first.state_dict()))
    validate(second)
    assert differing(first(INPUT), second(INPUT)) == 0
    for model in (first, second):
        train_steps(model, CASE.shapes, steps=3, lr=1e-2)
    assert differing(first(INPUT), second(INPUT)) == 0


def test_training_resumes_from_its_own_checkpoint() -> None:
    whole, half = calibrated(), calibrated()
    train_steps(whole, CASE.shapes, steps=2, lr=1e-2)
    train_steps(half, CASE.shapes, steps=2, lr=1e-2)
    resumed = prepared(CASE.model(seed=3), "bayes")
    resumed.load_state_dict(saved(half.state_dict()))
    for model in (whole, resumed):
        train_steps(model, CASE.shapes, steps=2, lr=1e-2)
    assert differing(whole(INPUT), resumed(INPUT)) == 0
    assert_exact(resumed, (INPUT,))


def test_scalar_scales_load_whether_saved_with_one_axis_or_none() -> None:
    first, second = calibrated(), prepared(CASE.model(), "bayes")
    state = {name: value.reshape(()) if value.numel() == 1 else value for name, value in first.state_dict().items()}
    second.load_state_dict(state)
    validate(second)
    assert differing(first(INPUT), second(INPUT)) == 0


def test_strict_loading_reports_what_differs() -> None:
    model = calibrated()
    state = model.state_dict()
    state["unknown"] = state.pop("fc.weight")
    with pytest.raises(RuntimeError, match=r"(?s)fc\.weight.*unknown"):
        calibrated().load_state_dict(state)


def test_converted_state_loads_after_the_first_forward_pass() -> None:
    first, second = calibrated(), calibrated()
    train_steps(first, CASE.shapes, steps=3, lr=0.1)
    converted, other = convert_fx(first), convert_fx(second)
    assert differing(other(INPUT), converted(INPUT)) > 0
    other.load_state_dict(saved(converted.state_dict()))
    assert differing(other(INPUT), converted(INPUT)) == 0


def test_checkpoint_of_an_unseen_model_is_refused_by_convert() -> None:
    model = calibrated()
    model.load_state_dict(prepared(CASE.model(), "bayes").state_dict())
    with pytest.raises(ConvertError, match="never seen data"):
        convert_fx(model)


def test_float_model_is_left_alone_by_prepare_calibration_and_training() -> None:
    for mode in (QATMode.FuseBN, QATMode.WithBN):
        net = CASE.model()
        before = {name: value.clone() for name, value in net.state_dict().items()}
        flags = [module.training for module in net.modules()]
        with qat_mode_scope(mode):
            model = prepared(net, "bayes")
        calibrate(model, CASE.shapes)
        train_steps(model, CASE.shapes, lr=0.1)
        convert_fx(model)
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        assert [module.training for module in net.modules()] == flags
        stem: Any = net.stem
        assert type(stem[0]) is nn.Conv2d


@pytest.mark.parametrize("inplace", [False, True], ids=["copy", "inplace"])
def test_conversion_leaves_the_float_model_alone(inplace: bool) -> None:
    model: Any = CASE.model()
    model.spare = nn.Linear(3, 3)
    model.spare.qconfig = None
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    observed = prepared(model, "bayes")
    calibrate(observed, CASE.shapes)
    convert_fx(observed, inplace=inplace)
    assert all(torch.equal(parameter, before.pop(name)) for name, parameter in model.named_parameters())
    assert not before
    assert model.spare.qconfig is None

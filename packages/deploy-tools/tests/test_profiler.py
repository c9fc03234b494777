"""Stages side by side: equal where the promise holds, and the first place named where somebody broke it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bpu_deploy_tools import LoweringError, SourceError, lower
from bpu_deploy_tools.profiler import compare_script_models, compare_stages, script_profile
from bpu_fx_fusion import FloatFunctional
from bpu_kernels.march import March
from bpu_qat_nn import (
    ConvertError,
    DeQuantStub,
    QuantStub,
    convert,
    convert_fx,
    plain_module,
    prepare_calibration,
    set_preserve_qat_mode,
)
from bpu_qat_nn.testing import NETS, calibrate, prepared, real_inputs, train_steps
from bpu_qat_nn.testing.classifiers import MobileNet, ResNet
from bpu_qconfig import FakeQuantState, default_qat_8bit_fake_quant_qconfig, set_fake_quantize

pytestmark = pytest.mark.filterwarnings(  # of torch.jit.trace, which newer torches deprecate
    "ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)

SHAPES = ((1, 3, 32, 32),)
X = real_inputs(SHAPES, 5)
WHOLE_NETS = [pytest.param(name, march, id=f"{name}-{march}") for name, case in NETS.items() for march in case.marches]


def qat(net: type[nn.Module] = ResNet) -> Any:
    model = prepared(net().eval(), "bayes")
    calibrate(model, SHAPES)
    return model


def traced(model: nn.Module) -> Any:
    return torch.jit.trace(model, X)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(("name", "march"), WHOLE_NETS)
def test_all_places_of_a_trained_net_give_equal_integers_at_all_stages(name: str, march: March) -> None:
    case = NETS[name]
    model = prepared(case.model(), march)
    calibrate(model, case.shapes)
    train_steps(model, case.shapes)

    found = compare_stages(model, real_inputs(case.shapes, 5))
    assert found.equal, found
    assert len(found.places) > 3
    assert str(found).endswith(f"equal integers at all {len(found.places)} places")


@pytest.mark.parametrize("state", FakeQuantState)
def test_model_may_be_in_any_state_and_stays_in_it(state: FakeQuantState) -> None:
    model = qat()
    model.train(state is FakeQuantState.QAT)
    set_fake_quantize(model, state)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    assert compare_stages(model, X).equal
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("path", ["stem.0", "blocks.2.body.3", "fc"])
def test_first_difference_is_where_the_converted_model_was_changed(path: str) -> None:
    model = qat(MobileNet)
    converted = convert_fx(model)
    weight = converted.get_submodule(path).weight
    assert isinstance(weight, Tensor)
    weight.neg_()

    found = compare_stages(model, X, converted=converted)
    assert found.first is not None
    assert (found.first.place, found.first.expected, found.first.got) == (path, "VALIDATION", "converted")
    assert "integers differ" in found.first.text
    assert f"the first at {path}: converted differs from VALIDATION" in str(found)
    assert {each.got for each in found.differences} == {"converted"}  # the Program is that of the changed model


def test_eager_models_are_compared_too() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant, self.conv, self.dequant = QuantStub(), nn.Conv2d(3, 3, 1), DeQuantStub()
            self.add, self.qconfig = FloatFunctional(), default_qat_8bit_fake_quant_qconfig

        def forward(self, x: Tensor) -> Tensor:
            x = self.quant(x)
            y: Tensor = self.dequant(self.add.add(self.conv(self.conv(x)), x))
            return y

    model = prepare_calibration(Net().eval())
    model(*X)
    found = compare_stages(model, X)
    assert found.equal, found
    assert found.places == ("quant", "conv", "conv(1)", "add")
    converted: Any = convert(model)
    converted.add.scale.mul_(2)
    first = compare_stages(model, X, converted=converted).first
    assert first is not None
    assert first.place == "add"


def test_model_without_data_or_program_is_refused() -> None:
    with pytest.raises(ConvertError, match="never seen data"):
        compare_stages(prepared(ResNet().eval(), "bayes"), X)
    model = qat()
    set_preserve_qat_mode(model, prefixes=("fc",))
    with pytest.raises(LoweringError, match=r"fc stayed under QAT \(set_preserve_qat_mode\)"):
        compare_stages(model, X)
    with pytest.raises(LoweringError, match="fc stayed under QAT"):
        lower(convert_fx(model), X)


@pytest.mark.parametrize("capture", [traced, lambda model: plain_module(model, *X), lambda model: model])
def test_operators_of_a_captured_model_equal_those_of_its_program(
    capture: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = script_profile(capture(convert_fx(qat())), X, out_dir=str(tmp_path), march="bayes")

    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [name for name, *verdict in filter(None, printed) if verdict == ["True"]] == list(results)
    assert list(results)[:4] == ["quantize", "conv2d", "max_pool2d", "conv2d(1)"]
    saved = torch.load(tmp_path / "horizon_script_result.pt")
    assert saved.keys() == results.keys()
    assert all(torch.equal(saved[name], value) for name, value in results.items())


def test_operators_can_be_chosen_and_the_comparison_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    model = convert_fx(qat())
    results = script_profile(
        model, X, mark_node_func=lambda name: name.startswith("max"), compare_with_hbdk_parser=False
    )

    assert list(results) == ["max_pool2d"]
    assert capsys.readouterr().out == ""


def test_two_versions_differ_from_the_changed_operator_on() -> None:
    model = qat()
    first = traced(convert_fx(model))
    changed: Any = convert_fx(model)
    changed.get_submodule("blocks.0.body.0").weight.neg_()

    same = compare_script_models(first, traced(convert_fx(model)), X)
    assert set(same.values()) == {True}
    different = compare_script_models(first, traced(changed), X, march=March.BAYES)
    assert [name for name, equal in different.items() if equal] == ["quantize", "conv2d", "max_pool2d"]


def test_operator_that_one_version_lacks_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    found = compare_script_models(convert_fx(qat(ResNet)), convert_fx(qat(MobileNet)), X)

    assert found["max_pool2d"] is False
    assert "only one has it" in capsys.readouterr().out


def test_other_models_and_other_marches_are_refused() -> None:
    with pytest.raises(SourceError, match="expected a traced model"):
        script_profile(nn.ReLU(), X)
    with pytest.raises(SourceError, match="the model is for bayes, not for bernoulli2"):
        script_profile(convert_fx(qat()), X, march="bernoulli2")

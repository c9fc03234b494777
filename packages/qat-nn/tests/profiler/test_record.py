"""The recorder: every call of every place, at every stage, and the model as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_fx_fusion import FloatFunctional, fuse_fx
from bpu_qat_nn import DeQuantStub, QTensor, QuantStub, convert, convert_fx, prepare_calibration, prepare_qat_fx
from bpu_qat_nn.profiler import record
from bpu_qat_nn.testing import calibrate, differing, prepared, validate
from bpu_qconfig import FakeQuantState, default_qat_8bit_fake_quant_qconfig, set_fake_quantize

X = torch.linspace(-1, 1, 2 * 3 * 4 * 4).reshape(2, 3, 4, 4)


class Block(nn.Module):
    """An addition written as a method, an activation that overwrites its input, a function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU(inplace=True)
        self.add = FloatFunctional()

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        y = self.bn(self.conv(x))
        y = self.relu(y)
        z: Tensor = self.add.add(y, x)
        return torch.flatten(z * scale, 2)


class Net(nn.Module):
    """A block that is called with a keyword, between stubs."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.block, self.dequant = QuantStub(), Block(), DeQuantStub()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dequant(self.block(self.quant(x), scale=0.5))
        return y


def qat() -> Any:
    model = prepared(Net().eval(), "bayes")
    calibrate(model, (X.shape,))
    return model


def test_float_model_gives_a_call_for_each_module_and_method() -> None:
    calls = record(Net().eval(), X).calls

    assert [(call.path, call.kind, call.method) for call in calls] == [
        ("quant", "QuantStub", None),
        ("block.conv", "Conv2d", None),
        ("block.bn", "BatchNorm2d", None),
        ("block.relu", "ReLU", None),
        ("block.add", "FloatFunctional", "add"),
        ("dequant", "DeQuantStub", None),
    ]


def test_what_is_overwritten_later_is_kept_as_it_was() -> None:
    model = Net().eval()
    recording = record(model, X)
    bn, relu = recording.call("block.bn"), recording.call("block.relu")

    assert bn is not None
    assert relu is not None
    assert torch.equal(bn.result, model.block.bn(model.block.conv(X)))
    assert bn.result.min() < 0
    assert torch.equal(relu.inputs[0], bn.result)
    assert torch.equal(relu.result, bn.result.relu())


def test_inference_mode_around_changes_nothing_of_what_is_recorded() -> None:
    model = Net().eval()
    expected = record(model, X)
    with torch.inference_mode():
        found = record(model, X.clone())

    assert [call.label for call in found.calls] == [call.label for call in expected.calls]
    assert all(torch.equal(a.result, b.result) for a, b in zip(found.calls, expected.calls, strict=True))


def test_graph_gives_its_functions_by_node_with_the_path_of_the_module_around() -> None:
    kinds = {call.path: call.kind for call in record(fuse_fx(Net().eval()), X).calls}

    assert kinds["block.flatten"] == "flatten"
    assert kinds["block.conv"] == "ConvReLU2d"
    assert kinds["block_generated_mul_scalar_0"] == "FloatFunctional"


@pytest.mark.parametrize("state", FakeQuantState)
def test_recording_changes_nothing_of_a_prepared_model(state: FakeQuantState) -> None:
    model = qat()
    model.train(state is FakeQuantState.QAT)
    set_fake_quantize(model, state)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]

    record(model, X * 3)

    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert modes == [module.training for module in model.modules()]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not any("add" in vars(module) for module in model.modules())


def test_result_is_that_of_the_model_at_every_stage() -> None:
    model = qat()
    for each in (model, convert_fx(model)):
        recording = record(each, X)
        assert differing(recording.result, each(X)) == 0
        conv = recording.call("block.conv")
        assert conv is not None
        assert isinstance(conv.result, QTensor)
        assert differing(conv.function(*conv.args, **conv.kwargs), conv.result) == 0


def test_eager_models_are_recorded_at_every_stage() -> None:
    model = prepare_calibration(EagerNet().eval())
    model(X)
    validate(model)  # type: ignore[arg-type]

    for each in (model, convert(model)):
        assert [call.path for call in record(each, X).calls] == ["quant", "conv", "add", "dequant"]


class EagerNet(nn.Module):
    """Modules and methods only."""

    qconfig = default_qat_8bit_fake_quant_qconfig

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv, self.add = nn.Conv2d(3, 3, 1), FloatFunctional()

    def forward(self, x: Tensor) -> Tensor:
        x = self.quant(x)
        y: Tensor = self.dequant(self.add.add(self.conv(x), x))
        return y


class Nested(nn.Module):
    """Takes a dict and a keyword, gives a dict of lists."""

    def __init__(self) -> None:
        super().__init__()
        self.leaf = Leaf()

    def forward(self, x: Tensor, *, more: dict[str, Tensor]) -> dict[str, list[Tensor]]:
        found: dict[str, list[Tensor]] = self.leaf(x, other=more["y"])
        return found


class Leaf(nn.Module):
    """A user's module without children."""

    def forward(self, x: Tensor, *, other: Tensor) -> dict[str, list[Tensor]]:
        return {"sum": [x + other], "both": [x, other]}


def test_keywords_and_nested_results_are_kept() -> None:
    (call,) = record(Nested(), {"x": X, "more": {"y": X + 1}}).calls

    assert [torch.equal(got, wanted) for got, wanted in zip(call.inputs, (X, X + 1), strict=True)] == [True, True]
    assert [len(value) for value in call.result.values()] == [1, 2]
    assert len(call.outputs) == 3
    assert call.writes[1:] == call.reads


def test_named_inputs_are_given_to_a_graph_by_position() -> None:
    model = prepare_qat_fx(Net().eval(), {"": default_qat_8bit_fake_quant_qconfig})
    calibrate(model, (X.shape,))

    assert differing(record(model, {"x": X}).result, record(model, X).result) == 0


class Twice(nn.Module):
    """One convolution, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(self.conv(x)))


def test_calls_of_a_shared_module_are_numbered_and_follow_each_other() -> None:
    first, second = record(Twice(), X).calls

    assert (first.label, second.label) == ("conv", "conv(1)")
    assert second.reads == first.writes

"""The guide's chapter "Model Segmented Deployment": a QuantStub at the cut, trained as one, run as two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.quantization import DeQuantStub  # type: ignore[attr-defined]

import bpu_kernels
from bpu_deploy_tools import lower, split_segments, torch_outputs
from bpu_deploy_tools.lowering.layout import channels_last
from horizon_plugin_pytorch import qconfig, set_march
from horizon_plugin_pytorch.quantization import FakeQuantState, QuantStub, convert_fx, prepare_qat_fx, set_fake_quantize
from horizon_plugin_pytorch.quantization.fx.graph_module import ObservedGraphModule, QuantizedGraphModule


class TwoStages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant = QuantStub()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.cut = QuantStub(scale=None)
        self.head = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
        self.dequant = DeQuantStub()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dequant(self.head(self.cut(self.backbone(self.quant(x)))))
        return y


@pytest.fixture(params=["bernoulli2", "bayes"])
def trained(request: pytest.FixtureRequest) -> ObservedGraphModule:
    """Trained for three steps, as a whole."""
    set_march(request.param)
    model = prepare_qat_fx(TwoStages().train(), {"": qconfig.default_qat_8bit_fake_quant_qconfig})
    set_fake_quantize(model, FakeQuantState.QAT)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    for _ in range(3):
        model(torch.randn(2, 3, 8, 8)).square().mean().backward()
        optimizer.step()
    return model


def test_stub_at_the_cut_records_the_scale_of_its_input(trained: ObservedGraphModule) -> None:
    layer: Any = trained.get_submodule("backbone.0")
    produced = layer.activation_post_process.scale

    assert torch.equal(trained.cut.activation_post_process.scale, produced)
    assert torch.equal(convert_fx(trained).cut.scale, produced)


def test_stub_at_the_cut_changes_no_value(
    trained: ObservedGraphModule, assert_one_arithmetic: Callable[..., QuantizedGraphModule]
) -> None:
    assert_one_arithmetic(trained, torch.randn(2, 3, 8, 8))


def test_two_stages_on_real_values_at_the_cut_give_the_integers_of_the_whole(trained: ObservedGraphModule) -> None:
    whole = convert_fx(trained)
    x = torch.randn(2, 3, 8, 8)

    first = whole.dequant(whole.backbone(whole.quant(x)))
    second = whole.dequant(whole.head(whole.cut(first)))

    assert type(first) is Tensor
    assert torch.equal(second, whole(x))


def test_stages_split_by_one_call_give_the_integers_of_the_whole(trained: ObservedGraphModule) -> None:
    whole, x = convert_fx(trained), torch.randn(2, 3, 8, 8)
    segments = split_segments(whole, x)

    assert [part.name for part in segments] == ["stage1", "stage2"]
    assert torch.equal(segments(x), whole(x))
    assert torch.equal(segments.run(x), whole(x))


def test_each_stage_compiled_on_its_own_with_float_examples_runs_on_the_integers_of_the_stage_before(
    trained: ObservedGraphModule,
) -> None:
    """The guide's step 4: the example input of stage 2 is in floating point, its QuantStub sets the scale."""
    whole, x = convert_fx(trained), torch.randn(2, 3, 8, 8)
    first, second = (part.module for part in split_segments(whole, x))
    assert isinstance(first, QuantizedGraphModule)
    assert isinstance(second, QuantizedGraphModule)
    programs = lower(first, x), lower(second, torch.zeros(2, 8, 8, 8))

    image = x.permute(channels_last(4)).numpy()
    features = bpu_kernels.run(programs[0], bpu_kernels.quantize_inputs(programs[0], image))
    (integers,) = features.values()
    result = torch_outputs(programs[1], bpu_kernels.run(programs[1], integers))
    assert torch.equal(result["dequant"], whole(x))

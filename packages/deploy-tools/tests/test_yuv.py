"""YUV input: the edited model sees camera images and answers as on the RGB images that they show."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bpu_kernels
from bpu_deploy_tools import SurgeryError, insert_yuv_input, lower, rgb_to_nv12, torch_outputs
from bpu_qat_nn import DeQuantStub, QuantizedGraphModule, QuantStub, convert_fx, rgb2centered_yuv
from bpu_qat_nn.testing import prepared
from bpu_qconfig import FakeQuantState, march_scope, set_fake_quantize

MEAN, STD = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)


class Net(nn.Module):
    def __init__(self, inputs: int = 1) -> None:
        super().__init__()
        self.quant, self.other = QuantStub(), QuantStub()
        self.conv, self.dequant = nn.Conv2d(3, 4, 3, padding=1), DeQuantStub()
        self.inputs = inputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dequant(self.conv(self.quant(x)))
        return y


def normalized(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    return (images - mean) / std


def images(size: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    small = torch.randint(0, 256, (2, 3, size // 4, size // 4), generator=generator).float()
    return nn.functional.interpolate(small, scale_factor=4, mode="bilinear").round()


def converted(march: str) -> QuantizedGraphModule:
    torch.manual_seed(0)
    model = prepared(Net().eval(), march)
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    model(normalized(images()))
    with march_scope(march):
        return convert_fx(model)


@pytest.mark.parametrize("march", ["bernoulli2", "bayes", "bayes-e"])
def test_model_answers_on_yuv_as_on_rgb(march: str) -> None:
    model, rgb = converted(march), images()
    expected = model(normalized(rgb))
    with march_scope(march):
        insert_yuv_input(model, mean=MEAN, std=STD)
        got = model(rgb2centered_yuv(rgb, swing="full").round())
    assert float(model.quant.scale) == 1.0
    step = float(model.conv.scale)
    # YUV is rounded to integers, and so is the RGB made of it: outputs may be some steps off, on average less than 1.
    assert float((got - expected).abs().mean()) < step
    assert float((got - expected).abs().max()) < 5 * step


@pytest.mark.parametrize("march", ["bernoulli2", "bayes", "bayes-e"])
def test_program_takes_nv12_and_equals_the_edited_model(march: str) -> None:
    model, rgb = converted(march), images()[:1]
    with march_scope(march):
        insert_yuv_input(model, mean=MEAN, std=STD)
        program = lower(model, (torch.zeros(1, 3, 32, 32),), input_source="pyramid")
        nv12 = rgb_to_nv12(rgb)
        got = torch_outputs(program, bpu_kernels.run(program, {"x": nv12}))["output"]
        seen = np.moveaxis(bpu_kernels.ops.input.nv12_to_yuv444(nv12, 32, 32), 3, 1)
        expected = model(torch.from_numpy(seen.astype(np.float32)))
    assert torch.equal(got, expected)


def test_hand_written_surgery_and_one_call_give_the_same_graph() -> None:
    from bpu_qat_nn import centered_yuv2rgb

    by_hand, by_call = converted("bayes"), converted("bayes")
    for n in by_hand.graph.nodes:
        if n.target == "quant":
            with by_hand.graph.inserting_after(n):
                new_node = by_hand.graph.call_function(centered_yuv2rgb, (n,), {"swing": "full"})
                n.replace_all_uses_with(new_node)
                new_node.args = (n,)
    by_hand.quant.scale.fill_(1.0)
    by_hand.recompile()
    insert_yuv_input(by_call)
    assert [(n.op, n.target) for n in by_hand.graph.nodes] == [(n.op, n.target) for n in by_call.graph.nodes]


def test_second_insertion_is_refused() -> None:
    model = converted("bayes")
    insert_yuv_input(model)
    with pytest.raises(SurgeryError, match="already"):
        insert_yuv_input(model)


def test_unknown_stub_is_refused_with_those_that_exist() -> None:
    with pytest.raises(SurgeryError, match=r"'nowhere'.*\['quant'\]"):
        insert_yuv_input(converted("bayes"), stub="nowhere")

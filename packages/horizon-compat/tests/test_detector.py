"""A detector of the vendor's names alone: it is calibrated, trained, converted and split, and stays exact."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import horizon_plugin_pytorch as horizon
from bpu_deploy_tools import lower, split_segments
from horizon_plugin_pytorch.march import set_march
from horizon_plugin_pytorch.quantization import (
    DeQuantStub,
    FakeQuantState,
    QuantStub,
    convert_fx,
    prepare_qat_fx,
    set_fake_quantize,
)

CLASSES, ANCHORS = 3, 2


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.to_yuv = horizon.nn.BgrToYuv444(channel_reversal=True)
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, 2, 1), horizon.nn.LayerNorm((8, 8, 8))
        self.shuffle, self.act = horizon.nn.ChannelShuffle([1, 0, 3, 2, 5, 4, 7, 6]), horizon.nn.Selu()
        self.head = nn.Conv2d(8, ANCHORS * (4 + CLASSES), 1)
        self.anchors = horizon.nn.AnchorGenerator(((4, 6),), ((1.0,),))
        self.post = horizon.nn.DetectionPostProcess(-1.0, iou_threshold=0.5, image_size=(16, 16), post_nms_top_n=20)

    def forward(self, images: Tensor) -> Any:
        x = self.shuffle(self.norm(self.conv(self.quant(self.to_yuv(images) / 128 - 1))))
        predictions = self.head(horizon.functional.abs(self.act(x)))
        regressions, scores = predictions.split([ANCHORS * 4, ANCHORS * CLASSES], 1)
        found = self.post(self.anchors.by_level(images, [x]), [self.dequant(scores)], [self.dequant(regressions)])
        best = self.dequant(horizon.functional.argmax(scores, 1))
        return found, best, horizon.functional.filter(scores, threshold=0.1)


def leaves(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [leaf for each in value for leaf in leaves(each)]


@pytest.fixture
def trained() -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    set_march("bayes")
    images = torch.rand(2, 3, 16, 16) * 255
    model = prepare_qat_fx(Detector(), {"": horizon.qconfig.default_qat_8bit_fake_quant_qconfig})
    model.eval()
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    model(images)
    model.train()
    set_fake_quantize(model, FakeQuantState.QAT)
    model(images)
    model.eval()
    set_fake_quantize(model, FakeQuantState.VALIDATION)
    return model, images


def test_detector_goes_all_the_way(trained: tuple[Any, Tensor]) -> None:
    model, images = trained
    quantized = convert_fx(model)
    segments = split_segments(quantized, images)

    expected = leaves(model(images))
    assert len(expected) > 6
    for found in (quantized(images), segments(images), segments.run(images)):
        assert all(torch.equal(a, b) for a, b in zip(expected, leaves(found), strict=True))
    assert [part.name for part in segments] == ["cpu0", "stage1", "cpu1"]


def test_colour_module_is_the_function_by_order_of_channels() -> None:
    image = torch.rand(1, 3, 2, 2) * 255
    assert torch.equal(horizon.nn.BgrToYuv444()(image), horizon.bgr2yuv(image))
    assert torch.equal(horizon.nn.BgrToYuv444(True)(image), horizon.rgb2yuv(image))


def test_channels_are_shuffled_without_a_computation() -> None:
    set_march("bernoulli2")
    shuffle = horizon.nn.ChannelShuffle([2, 0, 1])
    model = prepare_qat_fx(
        nn.Sequential(QuantStub(), shuffle, DeQuantStub()), {"": horizon.qconfig.default_qat_8bit_fake_quant_qconfig}
    ).eval()
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    x = torch.randn(1, 3, 2, 2)
    model(x)
    program = lower(convert_fx(model), x)
    assert torch.equal(shuffle(x), x[:, [2, 0, 1]])
    assert {node.kernel.name for node in program.nodes} <= {"slice", "concat"}

"""Detectors cut into stages: convolutions on the BPU, anchors and post-processing on the CPU, equal to the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bpu_deploy_tools import split_segments
from bpu_fx_fusion import MultiScaleRoIAlign
from bpu_kernels.march import March
from bpu_qat_nn import DeQuantStub, QuantizedGraphModule, QuantStub, convert_fx, prepare_qat_fx
from bpu_qat_nn.detection import (
    AnchorGenerator,
    DetectionPostProcess,
    DetectionPostProcessV1,
    PointPillarsScatter,
    RcnnPostProcess,
    filter,
    point_pillars_preprocess,
)
from bpu_qconfig import FakeQuantState, default_qat_8bit_fake_quant_qconfig, march_scope, set_fake_quantize

DRAW = torch.Generator().manual_seed(0)
IMAGES = torch.randn(2, 3, 32, 32, generator=DRAW)
CLOUDS = [torch.rand(60, 4, generator=DRAW) * torch.tensor([8.0, 7.0, 1.0, 1.0]) for _ in range(2)]


def layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU())


class TwoLevels(nn.Module):
    """A RetinaNet of two levels with anchors and post-processing."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.scores, self.boxes = QuantStub(), DeQuantStub(), DeQuantStub()
        self.stem, self.further = layer(3, 8), layer(8, 8)
        self.of_classes, self.of_boxes = nn.Conv2d(8, 2 * 3, 1), nn.Conv2d(8, 2 * 4, 1)
        self.anchors = AnchorGenerator(((4, 6), (8, 12)), ((1.0,),) * 2)
        self.post = DetectionPostProcess(-1.0, iou_threshold=0.5, post_decode_top_n=80, post_nms_top_n=20)

    def forward(self, images: Tensor) -> Any:
        first = self.stem(self.quant(images))
        levels = [first, self.further(first)]
        scores = [self.scores(self.of_classes(each)) for each in levels]
        boxes = [self.boxes(self.of_boxes(each)) for each in levels]
        return self.post(self.anchors.by_level(images, levels), scores, boxes)


class OnIntegers(TwoLevels):
    """The same for the post-processing of bernoulli2, and filter, which need no DeQuantStub."""

    def __init__(self) -> None:
        super().__init__()
        self.of_all = nn.Conv2d(8, 2 * 7, 1)
        self.post = DetectionPostProcessV1(3, -1.0, [0, 3], True, (32, 32), 0.5, 50, 20)  # type: ignore[assignment]

    def forward(self, images: Tensor) -> Any:
        first = self.stem(self.quant(images))
        levels = [first, self.further(first)]
        found = [self.of_all(each) for each in levels]
        return self.post(found, self.anchors.by_level(images, levels)), filter(*found[:1], threshold=0.1)


class TwoStages(TwoLevels):
    """Proposals between two stages on the BPU, and what becomes of them behind the second."""

    def __init__(self) -> None:
        super().__init__()
        self.of_objects = nn.Conv2d(8, 2, 1)
        self.anchors = AnchorGenerator(((4, 6),), ((1.0,),))
        self.propose = DetectionPostProcess(-5.0, image_size=(32, 32), iou_threshold=0.9, post_nms_top_n=6)
        self.cut, self.regions, self.pooled = QuantStub(), QuantStub(), MultiScaleRoIAlign(None, 2, 2, strides=(2,))
        self.to_classes, self.to_boxes = nn.Conv2d(8, 4, 2), nn.Conv2d(8, 16, 2)
        self.rcnn = RcnnPostProcess((32, 32), 0.5, -10.0, 3, 10)

    def forward(self, images: Tensor) -> Any:
        features = self.stem(self.quant(images))
        scores, boxes = self.scores(self.of_objects(features)), self.boxes(self.of_boxes(features))
        proposals, _, _ = self.propose(self.anchors.by_level(images, [features]), [scores], [boxes])[0]
        x = self.pooled([self.cut(features)], [self.regions(proposals)])
        return self.rcnn([proposals], self.scores(self.to_classes(x)), self.boxes(self.to_boxes(x)))


class Pillars(nn.Module):
    """Points to a map of pillars, and its convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.features = nn.Sequential(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d((1, 5), (1, 5)))
        self.scatter, self.conv = PointPillarsScatter((2, 8, 6, 7)), nn.Conv2d(8, 4, 3)

    def forward(self, clouds: list[Tensor]) -> Any:
        x, coords = point_pillars_preprocess(clouds, (0, 0, 0, 7, 6, 1), (1, 1, 1), 20, 5, True, None, None)
        x = self.features(self.quant(x)).squeeze(3).squeeze(0).transpose(0, 1)
        return self.dequant(self.conv(self.scatter(x, coords)))


BAYES = (March.BAYES, March.BAYES_E)
MODELS: dict[str, tuple[Any, Any, tuple[March, ...], list[str]]] = {
    "two_levels": (TwoLevels, IMAGES, tuple(March), ["stage1", "cpu1"]),
    "on_integers": (OnIntegers, IMAGES, tuple(March), ["stage1", "cpu1"]),
    "two_stages": (TwoStages, IMAGES[:1], BAYES, ["stage1", "cpu1", "stage2", "cpu2"]),
    "pillars": (Pillars, CLOUDS, BAYES, ["cpu0", "stage1"]),
}


def trained(make: Any, example: Any, march: March) -> QuantizedGraphModule:
    torch.manual_seed(1)
    with march_scope(march):
        model = prepare_qat_fx(make().eval(), {"": default_qat_8bit_fake_quant_qconfig}).eval()
        set_fake_quantize(model, FakeQuantState.CALIBRATION)
        model(example)
        model.train()
        set_fake_quantize(model, FakeQuantState.QAT)
        model(example)
        return convert_fx(model)


@pytest.mark.parametrize(
    ("name", "march"), [pytest.param(n, m, id=f"{n}-{m}") for n, (_, _, marches, _) in MODELS.items() for m in marches]
)
def test_detector_in_stages_gives_what_the_whole_gives(name: str, march: March) -> None:
    make, example, _, parts = MODELS[name]
    whole = trained(make, example, march)
    expected = tree_leaves(whole(example))
    segments = split_segments(whole, (example,))

    assert [part.name for part in segments] == parts
    assert sum(leaf.numel() for leaf in expected) > 50
    for found in (segments(example), segments.run(example), segments.run(example, backend="native")):
        assert all(torch.equal(a, b) for a, b in zip(tree_leaves(found), expected, strict=True))

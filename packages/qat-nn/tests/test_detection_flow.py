"""Detectors with their post-processing inside: it stays in float, whatever reaches it, and the rest is exact."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bpu_kernels.march import March
from bpu_qat_nn import DeQuantStub, PrepareError, QuantStub, convert, convert_fx, prepare_qat, prepare_qat_fx
from bpu_qat_nn.detection import (
    AnchorGenerator,
    DetectionPostProcess,
    DetectionPostProcessV1,
    PointPillarsScatter,
    RcnnPostProcess,
    filter,
    point_pillars_preprocess,
)
from bpu_qat_nn.testing import validate
from bpu_qconfig import (
    FakeQuantState,
    default_qat_8bit_fake_quant_qconfig,
    march_scope,
    set_fake_quantize,
)

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
ANCHORS = 2


class Detector(nn.Module):
    """One level, four regressions and three scores; what comes behind the head differs in subclasses."""

    def __init__(self, dequantizes: bool = False) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub() if dequantizes else nn.Identity()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(8, ANCHORS * (4 + 3), 3, 2, 1)
        self.anchors = AnchorGenerator(((8, 12),), ((1.0,),))
        self.post: Any = None

    def forward(self, images: Tensor) -> Any:
        features = self.head(self.backbone(self.quant(images)))
        return self.finish(self.dequant(features), images, features)

    def finish(self, found: Tensor, images: Tensor, features: Tensor) -> Any:
        raise NotImplementedError


class RetinaLike(Detector):
    def __init__(self, dequantizes: bool = False) -> None:
        super().__init__(dequantizes)
        self.post = DetectionPostProcess(-1.0, iou_threshold=0.5, post_nms_top_n=20)

    def finish(self, found: Tensor, images: Tensor, features: Tensor) -> Any:
        scores, regressions = found[:, : ANCHORS * 3], found[:, ANCHORS * 3 :]
        return self.post(self.anchors.by_level(images, [features]), [scores], [regressions])


class OnIntegers(Detector):
    def __init__(self, dequantizes: bool = False) -> None:
        super().__init__(dequantizes)
        self.post = DetectionPostProcessV1(3, -1.0, [0], True, (32, 32), 0.5, 50, 20, "pad_zero")

    def finish(self, found: Tensor, images: Tensor, features: Tensor) -> Any:
        return self.post([found], self.anchors.by_level(images, [features]))


class SecondStage(nn.Module):
    """Scores and regressions of four proposals of each image, from its quarters."""

    def __init__(self, dequantizes: bool = False) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub() if dequantizes else nn.Identity()
        self.scores, self.deltas = nn.Conv2d(3, 2, 2, 2), nn.Conv2d(3, 8, 2, 2)
        self.post = RcnnPostProcess((32, 32), 0.5, -10.0, 1, 6)
        corners = torch.tensor([[0.0, 0.0], [16.0, 0.0], [0.0, 16.0], [16.0, 16.0]])
        self.proposals = nn.Buffer(torch.cat((corners, corners + 16.0), 1))

    def forward(self, images: Tensor) -> Any:
        x = self.quant(images[:, :, ::8, ::8])
        scores, deltas = (layer(x).permute(0, 2, 3, 1).flatten(0, 2) for layer in (self.scores, self.deltas))
        return self.post([self.proposals, self.proposals], self.dequant(scores), self.dequant(deltas))


class Filtered(Detector):
    def finish(self, found: Tensor, images: Tensor, features: Tensor) -> Any:
        return filter(found, found, threshold=0.1, idx_range=(0, 4))


class Pillars(nn.Module):
    """Points to a map of pillars; with ``in_float``, the features of pillars are computed in float."""

    def __init__(self, in_float: bool = False) -> None:
        super().__init__()
        self.quant, self.cut, self.dequant = QuantStub(), QuantStub(), DeQuantStub()
        self.features = nn.Sequential(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d((1, 5), (1, 5)))
        self.scatter, self.conv, self.in_float = PointPillarsScatter((2, 8, 6, 7)), nn.Conv2d(8, 4, 3), in_float

    def forward(self, points: list[Tensor]) -> Tensor:
        low_and_high, size = (0, 0, 0, 7, 6, 1), (1, 1, 1)
        x, coords = point_pillars_preprocess(points, low_and_high, size, 20, 5, True, (*low_and_high,), (0, 1, 2))
        x = self.features(x if self.in_float else self.quant(x))
        x = self.scatter(x.squeeze(3).squeeze(0).transpose(0, 1), coords)
        result: Tensor = self.dequant(self.conv(self.cut(x) if self.in_float else x))
        return result


def calibrated(model: nn.Module, *inputs: Any, march: March = March.BAYES, in_float: tuple[str, ...] = ()) -> Any:
    """Return the model in VALIDATION state, trained for a step in between."""
    with march_scope(march):
        qconfigs = {"": default_qat_8bit_fake_quant_qconfig, "module_name": dict.fromkeys(in_float)}
        prepared = prepare_qat_fx(model.eval(), qconfigs)
    prepared.eval()
    set_fake_quantize(prepared, FakeQuantState.CALIBRATION)
    prepared(*inputs)
    prepared.train()
    set_fake_quantize(prepared, FakeQuantState.QAT)
    prepared(*inputs)
    validate(prepared)
    return prepared


def leaves(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [leaf for each in value for leaf in leaves(each)]


@pytest.mark.parametrize("march", list(March))
@pytest.mark.parametrize("dequantizes", [False, True], ids=["without_stub", "behind_a_stub"])
@pytest.mark.parametrize("make", [RetinaLike, OnIntegers, SecondStage])
def test_detector_is_converted_with_its_post_processing(make: Any, dequantizes: bool, march: March) -> None:
    model = make(dequantizes)
    prepared = calibrated(model, IMAGES, march=march)
    converted = convert_fx(prepared)
    assert type(converted.post) is type(model.post)
    expected, found = leaves(prepared(IMAGES)), leaves(converted(IMAGES))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert len(found[0]) > 1
    assert not any(leaf.requires_grad for leaf in expected)


def test_filter_needs_no_dequant_stub() -> None:
    prepared = calibrated(Filtered(), IMAGES)
    expected, found = leaves(prepared(IMAGES)), leaves(convert_fx(prepared)(IMAGES))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert [name for name, _ in prepared.named_modules() if "dequant" in name] == ["dequant", "filter_1_input_dequant"]


def test_pillars_are_a_map_of_the_same_integers() -> None:
    draw = torch.Generator().manual_seed(0)
    points = [torch.rand(60, 4, generator=draw) * torch.tensor([8.0, 7.0, 1.0, 1.0]) for _ in range(2)]
    for in_float in (False, True):
        prepared = calibrated(Pillars(in_float), points, in_float=("features",) if in_float else ())
        assert torch.equal(prepared(points), convert_fx(prepared)(points))
        kinds = {quantized.what for quantized in prepared.prepare_report.quantized}
        assert ("PillarMap" in kinds) is not in_float


def test_pillars_cannot_be_a_map_where_nothing_is_taken_by_index() -> None:
    with march_scope("bernoulli2"), pytest.raises(PrepareError, match=r"scatter\.map .*elements by index"):
        prepare_qat_fx(Pillars().eval(), {"": default_qat_8bit_fake_quant_qconfig})


def test_eager_models_take_integers_to_their_post_processing() -> None:
    model = RetinaLike().eval()
    model.qconfig = default_qat_8bit_fake_quant_qconfig  # type: ignore[assignment]
    prepared = prepare_qat(model).eval()
    set_fake_quantize(prepared, FakeQuantState.CALIBRATION)
    prepared(IMAGES)
    set_fake_quantize(prepared, FakeQuantState.VALIDATION)
    expected, found = leaves(prepared(IMAGES)), leaves(convert(prepared)(IMAGES))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))

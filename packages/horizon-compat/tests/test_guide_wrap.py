"""The guide's RetinaNet with small real parts: wrapped code runs as written, trained, evaluated and converted."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.quantization import DeQuantStub  # type: ignore[attr-defined]

from bpu_deploy_tools import split_segments
from bpu_qat_nn.testing import differing
from horizon_plugin_pytorch import qconfig
from horizon_plugin_pytorch.nn import qat, quantized
from horizon_plugin_pytorch.quantization import (
    FakeQuantState,
    QuantStub,
    convert_fx,
    fuse_fx,
    prepare_qat_fx,
    set_fake_quantize,
)
from horizon_plugin_pytorch.quantization.fx.graph_module import ObservedGraphModule
from horizon_plugin_pytorch.utils.fx_helper import wrap as fx_wrap

STRIDES = (2, 4)


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant = QuantStub(scale=1 / 128)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.stage = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.stem(self.quant(x))
        return [fine, self.stage(fine)]


class Neck(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lateral = nn.ModuleList([nn.Conv2d(8, 8, 1), nn.Conv2d(12, 8, 1)])

    def forward(self, feat: list[Tensor]) -> list[Tensor]:
        coarse = self.lateral[1](feat[1])
        return [self.lateral[0](feat[0]) + F.interpolate(coarse, scale_factor=2.0), coarse]


class Head(nn.Module):
    """One tower for all levels."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.tower = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.cls = nn.Conv2d(8, num_classes, 1)
        self.reg = nn.Conv2d(8, 4, 1)
        self.dequant = DeQuantStub()

    def forward(self, feat: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        towers = [self.tower(level) for level in feat]
        return [self.dequant(self.cls(t)) for t in towers], [self.dequant(self.reg(t)) for t in towers]


class Anchors(nn.Module):
    """A square of four strides around each position; boxes are (left, top, right, bottom)."""

    def forward(self, feat: list[Tensor]) -> list[Tensor]:
        return [self.level(level.shape[2], level.shape[3], stride) for level, stride in zip(feat, STRIDES, strict=True)]

    def level(self, height: int, width: int, stride: int) -> Tensor:
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centre = (torch.stack([x, y, x, y], -1).reshape(-1, 4) + 0.5) * stride
        return centre + torch.tensor([-2.0, -2.0, 2.0, 2.0]) * stride


def overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of each pair, [boxes, others]."""
    low = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = (high - low).clamp(min=0).prod(-1)
    area, other = ((b[:, 2:] - b[:, :2]).prod(-1) for b in (boxes, others))
    return common / (area[:, None] + other[None] - common)


class Targets(nn.Module):
    """An anchor belongs to the box that it overlaps most, if by 0.4 at least; label 0 is background."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, anchors: list[Tensor], gt_labels: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        every = torch.cat(anchors)
        cls, reg, positive = [], [], []
        for labels in gt_labels:
            best, index = overlaps(every, labels[:, :4]).max(1)
            mask = best >= 0.4
            kind = torch.where(mask, labels[index, 4], 0).long()
            cls.append(F.one_hot(kind, self.num_classes + 1)[:, 1:].float())
            reg.append((labels[index, :4] - every) / 8.0)
            positive.append(mask[:, None].float())
        ones = torch.ones(len(gt_labels), len(every), 1)
        return every, {
            "cls_label": torch.stack(cls),
            "cls_label_mask": ones,
            "reg_label": torch.stack(reg),
            "reg_label_mask": torch.stack(positive),
        }


class ClassLoss(nn.Module):
    def forward(self, pred: Tensor, target: Tensor, weight: Tensor, avg_factor: Tensor) -> Tensor:
        return (F.binary_cross_entropy(pred, target, reduction="none") * weight).sum() / avg_factor


class BoxLoss(nn.Module):
    def forward(self, pred: Tensor, target: Tensor, weight: Tensor, avg_factor: Tensor) -> Tensor:
        return (F.smooth_l1_loss(pred, target, reduction="none") * weight).sum() / avg_factor


class PostProcess(nn.Module):
    """The best three boxes of each image: left, top, right, bottom, score, class."""

    def forward(self, anchors: Any, cls_scores: Any, bbox_preds: Any, shapes: list[Tensor]) -> list[Tensor]:
        every = torch.cat(anchors)
        scores, boxes = (
            torch.cat([t.flatten(2) for t in level], 2).transpose(1, 2) for level in (cls_scores, bbox_preds)
        )
        found = []
        for score, box, shape in zip(scores.sigmoid(), boxes, shapes, strict=True):
            value, kind = score.max(1)
            value, index = value.topk(3)
            limit = torch.stack([shape[1], shape[0], shape[1], shape[0]])
            placed = torch.minimum((every[index] + box[index] * 8.0).clamp(min=0), limit)
            found.append(torch.cat([placed, value[:, None], kind[index, None]], 1))
        return found


def data() -> dict[str, Any]:
    """Return two images of 16 x 16 with one bright box each."""
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(2, 3, 16, 16, generator=generator) * 0.2 - 0.5
    images[0, :, 2:10, 3:11] += 0.8
    images[1, 0, 6:14, 5:13] += 0.8
    return {
        "img": images,
        "gt_bboxes": [torch.tensor([[3.0, 2.0, 11.0, 10.0]]), torch.tensor([[5.0, 6.0, 13.0, 14.0]])],
        "gt_classes": [torch.tensor([0]), torch.tensor([1])],
        "resized_shape": [(16, 16, 3), (16, 16, 3)],
    }


@pytest.fixture
def retina_net(run_script: Callable[[str], ModuleType]) -> nn.Module:
    parts = Backbone(), Neck(), Head(2), Anchors(), Targets(2), PostProcess(), ClassLoss(), BoxLoss()
    model: nn.Module = run_script("retina_net").RetinaNet(*parts)
    model(data())  # in training mode, so that the running statistics are not the initial ones
    return model


@pytest.fixture
def prepared(retina_net: nn.Module) -> ObservedGraphModule:
    """Calibrated, the outputs of the head in high precision."""
    high_precision = qconfig.default_calib_out_8bit_fake_quant_qconfig
    model = prepare_qat_fx(
        copy.deepcopy(retina_net).eval(),
        {
            "": qconfig.default_calib_8bit_fake_quant_qconfig,
            "module_name": {"head.cls": high_precision, "head.reg": high_precision},
        },
    )
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    model(data())
    return model


def wrapped_calls(model: Any) -> list[object]:
    return [node.target for node in model.graph.nodes if node.op == "call_method"]


def test_wrapped_method_is_one_node_in_every_stage(retina_net: nn.Module, prepared: ObservedGraphModule) -> None:
    for model in (fuse_fx(retina_net), prepared, convert_fx(prepared)):
        assert [target for target in wrapped_calls(model) if target == "_post_process"] == ["_post_process"]


def test_fused_model_gives_the_losses_and_the_boxes_of_the_float_model(retina_net: nn.Module) -> None:
    retina_net.eval()
    fused = fuse_fx(retina_net)
    torch.testing.assert_close(fused(data())["pred_bboxes"], retina_net(data())["pred_bboxes"])

    fused.train()
    for module in retina_net.modules():  # in training mode as a whole, its BatchNorms as the folded ones are
        module.training = not isinstance(module, nn.BatchNorm2d)
    torch.testing.assert_close(fused(data()), retina_net(data()))


def test_model_without_post_process_returns_the_head(run_script: Callable[[str], ModuleType]) -> None:
    model = run_script("retina_net").RetinaNet(Backbone(), Neck(), Head(2))

    cls_scores, bbox_preds = fuse_fx(model.eval())(data())

    assert [tuple(level.shape) for level in cls_scores] == [(2, 2, 8, 8), (2, 2, 4, 4)]
    assert [tuple(level.shape) for level in bbox_preds] == [(2, 4, 8, 8), (2, 4, 4, 4)]


def test_prepared_model_trains_through_the_branch_that_tracing_did_not_see(prepared: ObservedGraphModule) -> None:
    prepared.train()
    set_fake_quantize(prepared, FakeQuantState.QAT)
    optimizer = torch.optim.Adam(prepared.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = sum(prepared(data()).values())
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in prepared.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))

    assert losses[-1] < 0.5 * losses[0]


def test_converted_model_finds_exactly_the_boxes_of_validation(prepared: ObservedGraphModule) -> None:
    prepared.eval()
    set_fake_quantize(prepared, FakeQuantState.VALIDATION)

    found, expected = convert_fx(prepared)(data()), prepared(data())

    assert differing(found["pred_bboxes"], expected["pred_bboxes"]) == 0


def test_converted_model_splits_into_the_part_of_the_board_and_the_post_process(
    prepared: ObservedGraphModule,
) -> None:
    converted = convert_fx(prepared)
    example = data()
    segments = split_segments(converted, (example,))

    assert [(entry.name, entry.runs_on) for entry in segments.manifest.segments] == [("stage1", "bpu"), ("cpu1", "cpu")]
    assert "pred_bboxes" not in example
    expected = converted(data())["pred_bboxes"]
    assert differing(segments(data())["pred_bboxes"], expected) == 0
    assert differing(segments.run(data())["pred_bboxes"], expected) == 0


def test_evaluation_branch_answers_close_to_the_float_model(
    retina_net: nn.Module, prepared: ObservedGraphModule
) -> None:
    expected = torch.stack(retina_net.eval()(data())["pred_bboxes"])
    found = torch.stack(convert_fx(prepared)(data())["pred_bboxes"])

    torch.testing.assert_close(found[..., 4], expected[..., 4], rtol=0, atol=0.02)  # scores


def test_modules_that_only_wrapped_code_calls_stay_as_they_are_without_a_qconfig_of_their_own(
    prepared: ObservedGraphModule,
) -> None:
    converted = convert_fx(prepared)

    assert type(converted.loss_cls) is ClassLoss
    assert type(converted.post_process) is PostProcess


def test_modules_called_in_wrapped_code_can_be_given_a_qconfig() -> None:
    """The guide: "the modules called within the method can still be set with qconfig"."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant, self.conv, self.dequant = QuantStub(), nn.Conv2d(3, 3, 1), DeQuantStub()
            self.inner = nn.Sigmoid()

        def forward(self, x: Tensor) -> Any:
            return self._tail(self.conv(self.quant(x)))

        @fx_wrap()
        def _tail(self, x: Tensor) -> Any:
            y = self.inner(x)
            return self.dequant(y) if not self.training else self.dequant(y) * 1.0

    default = qconfig.default_qat_8bit_fake_quant_qconfig
    model = prepare_qat_fx(Model().eval(), {"": default, "module_name": {"inner": default, "dequant": default}})
    x = torch.randn(2, 3, 4, 4)
    model(x)
    set_fake_quantize(model, FakeQuantState.VALIDATION)
    converted = convert_fx(model)

    assert isinstance(model.inner, qat.SegmentLUT)
    assert isinstance(converted.inner, quantized.SegmentLUT)
    assert torch.equal(converted(x), model(x))

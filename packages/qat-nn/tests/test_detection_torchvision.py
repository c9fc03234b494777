"""Detection against torchvision's own heads, anchors and suppression, where torchvision is installed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bpu_fx_fusion import RoIAlign
from bpu_qat_nn import DeQuantStub, QuantStub
from bpu_qat_nn.detection import (
    AnchorGenerator,
    DetectionPostProcess,
    RcnnPostProcess,
    non_maximum_suppression,
)
from bpu_qat_nn.testing import assert_exact, prepared, validate
from bpu_qat_nn.testing import plain_detection as plain
from bpu_qconfig import FakeQuantState, set_fake_quantize

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed")

LIBRARY: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
"""Torch withdraws operators with the object that declared them."""


def _nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    kept = plain.suppressed(boxes.double().numpy(), scores.double().numpy(), threshold)
    return torch.tensor(kept, dtype=torch.int64)


@pytest.fixture(scope="module")
def vision() -> Callable[[str], Any]:
    """Give modules of torchvision; where its library was built for another torch, suppression is a plain loop."""
    try:
        import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.startswith("torchvision.")]:
            del sys.modules[name]
        for operator in ("nms", "qnms"):
            LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        LIBRARY.impl("nms", _nms, "CPU")
        vars(import_module("torchvision.extension"))["_has_ops"] = lambda: True
    return lambda name: import_module(f"torchvision.{name}")


def boxes_of(count: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=draw) * 80
    return torch.cat((corner, corner + 4 + torch.rand(count, 2, generator=draw) * 40), 1)


def test_suppression_is_that_of_torchvision(vision: Callable[[str], Any]) -> None:
    boxes, draw = boxes_of(400, 0), torch.Generator().manual_seed(1)
    scores, classes = torch.rand(400, generator=draw), torch.randint(0, 5, (400,), generator=draw)
    ops = vision("ops")
    for threshold in (0.1, 0.5, 0.9):
        assert torch.equal(non_maximum_suppression(boxes, scores, threshold), ops.nms(boxes, scores, threshold))
        expected = ops.batched_nms(boxes, scores, classes, threshold)
        assert torch.equal(non_maximum_suppression(boxes, scores, threshold, groups=classes), expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what torchvision imports to compile its own form
@pytest.mark.parametrize("aligned", [False, True])
def test_regions_are_pooled_as_torchvision_pools_them(vision: Callable[[str], Any], aligned: bool) -> None:
    """Within the map: its form in Python, unlike its compiled one, does not count what lies outside as 0."""
    torch.manual_seed(0)
    x, boxes = torch.randn(2, 3, 40, 50), torch.cat([torch.arange(20)[:, None] % 2, boxes_of(20, 2)], 1)
    with torch.compiler.set_stance("force_eager"):
        expected = vision("ops.roi_align")._roi_align(x, boxes, 0.3, 3, 2, 2, aligned)
    torch.testing.assert_close(RoIAlign((3, 2), 0.3, 2, aligned)(x, boxes), expected)


@pytest.mark.parametrize("aligned", [False, True])
def test_function_of_torchvision_is_the_module(vision: Callable[[str], Any], aligned: bool) -> None:
    ops = vision("ops")

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant, self.boxes, self.dequant = QuantStub(), QuantStub(scale=1 / 8), DeQuantStub()

        def forward(self, x: Tensor, boxes: Tensor) -> Tensor:
            pooled = ops.roi_align(self.quant(x), [self.boxes(boxes)], (3, 2), 0.5, sampling_ratio=2, aligned=aligned)
            y: Tensor = self.dequant(pooled)
            return y

    x, boxes = torch.randn(1, 3, 8, 8), torch.tensor([[1.0, 2.0, 9.0, 12.0], [3.0, 0.0, 14.0, 5.0]])
    model = prepared(Pooled(), "bayes")
    model.eval()
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    model(x, boxes)
    validate(model)
    assert_exact(model, (x, boxes))
    torch.testing.assert_close(model(x, boxes), RoIAlign((3, 2), 0.5, 2, aligned)(x, [boxes]), atol=0.1, rtol=0.0)


@pytest.mark.parametrize("sizes", [((32, 64), (96,)), (32, 64)], ids=["several", "one"])
def test_anchors_are_those_of_torchvision(vision: Callable[[str], Any], sizes: Any) -> None:
    ratios = ((0.5, 1.0, 2.0),) * 2
    images, maps = torch.zeros(2, 3, 100, 130), [torch.zeros(2, 1, 13, 17), torch.zeros(2, 1, 4, 5)]
    listed = vision("models.detection.image_list").ImageList(images, [(100, 130)] * 2)
    theirs = vision("models.detection.anchor_utils").AnchorGenerator(sizes, ratios)
    ours = AnchorGenerator(sizes, ratios)
    assert ours.num_anchors_per_location() == theirs.num_anchors_per_location()
    for given in (images, listed):
        for found, expected in zip(ours(given, maps), theirs(listed, maps), strict=True):
            assert torch.equal(found, expected)
    assert torch.equal(torch.cat(ours.by_level(images, maps)), ours(images, maps)[0])


def test_post_process_is_that_of_retina_net(vision: Callable[[str], Any]) -> None:
    retina = vision("models.detection.retinanet")
    draw, sizes = torch.Generator().manual_seed(3), ((12, 16), (6, 8))
    anchors = AnchorGenerator(((16, 24), (32, 48)), ((0.5, 1.0),) * 2).by_level(
        torch.zeros(2, 3, 96, 128), [torch.zeros(2, 1, *size) for size in sizes]
    )
    logits = [torch.randn(2, 4 * 5, *size, generator=draw) for size in sizes]
    deltas = [torch.randn(2, 4 * 4, *size, generator=draw) * 0.5 for size in sizes]

    def listed(x: Tensor, values: int) -> Tensor:
        n, _, h, w = x.shape
        return x.view(n, -1, values, h, w).permute(0, 3, 4, 1, 2).reshape(n, -1, values)

    theirs = retina.RetinaNet.__new__(retina.RetinaNet)
    torch.nn.Module.__init__(theirs)
    theirs.score_thresh, theirs.nms_thresh, theirs.topk_candidates, theirs.detections_per_img = 0.6, 0.5, 150, 40
    theirs.box_coder = vision("models.detection._utils").BoxCoder((1.0, 1.0, 1.0, 1.0))
    outputs = {
        "cls_logits": [listed(x, 5) for x in logits],
        "bbox_regression": [listed(x, 4) for x in deltas],
    }
    expected = theirs.postprocess_detections(outputs, [anchors] * 2, [(90, 120), (96, 128)])

    ours = DetectionPostProcess(0.6, post_decode_top_n=150, iou_threshold=0.5, post_nms_top_n=40)
    shapes = torch.tensor([[90, 120], [96, 128]])
    for (boxes, scores, classes), wanted in zip(
        ours(anchors, [x.sigmoid() for x in logits], deltas, shapes), expected, strict=True
    ):
        assert len(boxes) == 40
        assert torch.equal(classes, wanted["labels"])
        torch.testing.assert_close(scores, wanted["scores"])
        torch.testing.assert_close(boxes, wanted["boxes"])


def test_proposals_are_those_of_the_region_proposal_network(vision: Callable[[str], Any]) -> None:
    rpn = vision("models.detection.rpn")
    draw, counts = torch.Generator().manual_seed(4), [120, 40]
    anchors = [boxes_of(count, 5) for count in counts]
    objectness = [torch.randn(1, count, 1, generator=draw) for count in counts]
    deltas = [torch.randn(1, count, 4, generator=draw) * 0.5 for count in counts]
    theirs = rpn.RegionProposalNetwork(
        None, None, 0.7, 0.3, 256, 0.5, {"training": 60, "testing": 60}, {"training": 30, "testing": 30}, 0.6
    ).eval()
    proposals = theirs.box_coder.decode(torch.cat(deltas, 1)[0], [torch.cat(anchors)]).reshape(1, -1, 4)
    (boxes,), (scores,) = theirs.filter_proposals(proposals, torch.cat(objectness, 1), [(100, 100)], counts)

    ours = DetectionPostProcess(
        size_threshold=theirs.min_size,
        image_size=(100, 100),
        pre_decode_top_n=60,
        iou_threshold=0.6,
        post_nms_top_n=30,
        nms_on_each_level=True,
    )
    ((found, values, _),) = ours(anchors, [x.sigmoid() for x in objectness], deltas)
    torch.testing.assert_close(values, scores)
    torch.testing.assert_close(found, boxes)


def test_rcnn_post_process_is_that_of_the_box_head_for_boxes_of_one_class(vision: Callable[[str], Any]) -> None:
    heads = vision("models.detection.roi_heads")
    draw, proposals = torch.Generator().manual_seed(6), boxes_of(60, 7)
    logits, deltas = torch.randn(60, 4, generator=draw) * 4, torch.randn(60, 16, generator=draw)
    theirs = heads.RoIHeads(*[None] * 3, 0.5, 0.5, 1, 0.25, (10.0, 10.0, 5.0, 5.0), 0.51, 0.4, 20)
    (boxes,), (scores,), (labels,) = theirs.postprocess_detections(logits, deltas, [proposals], [(90, 110)])

    ours = RcnnPostProcess((90, 110), 0.4, 0.51, 3, 20, delta_std=(0.1, 0.1, 0.2, 0.2))
    (found,) = ours([proposals], logits.softmax(1), deltas)
    count = len(boxes)
    assert count > 5
    torch.testing.assert_close(found[:count], torch.cat((boxes, scores[:, None], labels[:, None]), 1))
    assert np.all(found[count:].numpy() == -1.0)

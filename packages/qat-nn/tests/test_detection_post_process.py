"""The post-processors against plain loops: which candidates there are, what stays, in which order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bpu_qat_nn import ArgumentError, InputError, QTensor
from bpu_qat_nn.detection import AnchorGenerator, DetectionPostProcess, DetectionPostProcessV1, RcnnPostProcess
from bpu_qat_nn.testing import plain_detection as plain

SIZES = ((6, 8), (3, 4))
"""Heights and widths of the maps of two levels, of an image of 48 x 64."""
IMAGE = (48, 64)
ANCHORS, CLASSES = 3, 4


def anchors_of(seed: int = 0) -> list[Tensor]:
    maps = [torch.zeros(2, 1, *size) for size in SIZES]
    return AnchorGenerator(((8, 16, 24), (16, 24, 32)), ((1.0,), (1.0,))).by_level(torch.zeros(2, 3, *IMAGE), maps)


def maps(values: int, seed: int) -> list[Tensor]:
    """Return maps [2, A * values, H, W] of both levels."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(2, ANCHORS * values, *size, generator=draw) for size in SIZES]


def rows(x: Tensor, image: int, values: int) -> list[list[float]]:
    """Return the predictions of an image, one row per anchor, by walking over the map."""
    found = []
    for y in range(x.shape[2]):
        for column in range(x.shape[3]):
            for anchor in range(ANCHORS):
                found.append([float(x[image, anchor * values + v, y, column]) for v in range(values)])
    return found


def best(candidates: list[Any], count: int | None) -> list[Any]:
    """Candidates are (box, score, class)."""
    return sorted(candidates, key=lambda each: -each[1])[:count]


def without_overlaps(candidates: list[Any], threshold: float | None) -> list[Any]:
    if threshold is None or not candidates:
        return candidates
    boxes, scores, classes = (np.array(each, dtype=np.float64) for each in zip(*candidates, strict=True))
    return [candidates[i] for i in plain.suppressed(boxes, scores, threshold, classes)]


def expected_of_image(post: DetectionPostProcess, levels: list[Any], size: tuple[int, int] | None) -> list[Any]:
    """What the docstring of DetectionPostProcess says, step by step."""
    by_level = []
    for anchors, scores, regressions in levels:
        found = []
        objectness = [row[0] for row in scores]
        classes = [list(enumerate(row)) for row in scores]
        if post.mode == "yolo":
            classes = [[(c, row[0] * s) for c, s in enumerate(row[1:])] for row in scores]
        classes = [[(c, s) for c, s in row if c != post.background_class_idx] for row in classes]
        judged = objectness if post.mode == "yolo" else [max(s for _, s in row) for row in classes]
        order = sorted(range(len(judged)), key=lambda i: -judged[i])[: post.pre_decode_top_n]
        for i in sorted(order):
            scale = post.regression_scale or (1, 1, 1, 1)
            regression = [r * s for r, s in zip(regressions[i], scale, strict=True)]
            box = plain.decoded(regression, anchors[i], in_pixels=post.mode == "yolo")
            if size is not None:
                box = plain.clipped(box, *size)
            if post.size_threshold is not None and min(box[2] - box[0], box[3] - box[1]) < post.size_threshold:
                continue
            for c, s in classes[i]:
                if (objectness[i] if post.mode == "yolo" else s) >= post.score_threshold:
                    found.append((box, s, c))
        by_level.append(best(found, post.post_decode_top_n))
    if not post.nms_on_each_level:
        by_level = [[each for level in by_level for each in level]]
    kept = [without_overlaps(best(level, post.pre_nms_top_n), post.iou_threshold) for level in by_level]
    return best([each for level in kept for each in level], post.post_nms_top_n)


def assert_detections(found: Any, expected: list[Any]) -> None:
    boxes, scores, classes = found
    assert classes.tolist() == [c for _, _, c in expected]
    torch.testing.assert_close(scores, torch.tensor([s for _, s, _ in expected]))
    torch.testing.assert_close(boxes, torch.tensor([b for b, _, _ in expected]).reshape(-1, 4), rtol=1e-4, atol=1e-3)


POST: dict[str, dict[str, Any]] = {
    "defaults": {},
    "retina_net": {"score_threshold": 0.5, "post_decode_top_n": 60, "iou_threshold": 0.5, "post_nms_top_n": 20},
    "background": {"background_class_idx": 0, "iou_threshold": 0.3, "regression_scale": (0.1, 0.1, 0.2, 0.2)},
    "proposals": {"pre_decode_top_n": 50, "iou_threshold": 0.7, "nms_on_each_level": True, "size_threshold": 4.0},
    "each_level": {"pre_nms_top_n": 30, "iou_threshold": 0.4, "nms_on_each_level": True, "post_nms_top_n": 15},
    "together": {"pre_nms_top_n": 30, "iou_threshold": 0.4},
    "yolo": {"mode": "yolo", "score_threshold": 0.2, "iou_threshold": 0.4, "pre_decode_top_n": 40},
    "yolo_background": {"mode": "yolo", "score_threshold": 0.2, "background_class_idx": 1},
    "clipped": {"image_size": IMAGE, "iou_threshold": 0.5},
    "nothing": {"score_threshold": 100.0, "iou_threshold": 0.5},
}


@pytest.mark.parametrize("case", POST)
@pytest.mark.parametrize("layout", ["maps", "rows"])
def test_detection_post_process_does_what_it_says(case: str, layout: str) -> None:
    post, anchors = DetectionPostProcess(**POST[case]), anchors_of()
    scores, regressions = maps(CLASSES, 1), maps(4, 2)
    listed = [
        [(a.tolist(), rows(s, i, CLASSES), rows(r, i, 4)) for a, s, r in zip(anchors, scores, regressions, strict=True)]
        for i in range(2)
    ]
    if layout == "rows":
        scores, regressions = (
            [torch.tensor([listed[i][level][which] for i in range(2)]) for level in range(2)] for which in (1, 2)
        )
    for image, found in enumerate(post(anchors, scores, regressions)):
        assert_detections(found, expected_of_image(post, listed[image], post.image_size))


def test_detection_post_process_clips_each_image_to_its_size() -> None:
    sizes = torch.tensor([[20, 30], [48, 40]])
    found = DetectionPostProcess()(anchors_of(), maps(1, 1), maps(4, 2), sizes)
    for (boxes, _, _), (height, width) in zip(found, sizes.tolist(), strict=True):
        assert float(boxes.min()) == 0.0
        assert (float(boxes[:, 2].max()), float(boxes[:, 3].max())) == (width, height)


def test_anchors_may_be_maps_of_one_image() -> None:
    anchors, scores, regressions = anchors_of(), maps(CLASSES, 1), maps(4, 2)
    as_maps = [a.reshape(*size, ANCHORS * 4).permute(2, 0, 1)[None] for a, size in zip(anchors, SIZES, strict=True)]
    post = DetectionPostProcess(iou_threshold=0.5)
    for one, other in zip(post(as_maps, scores, regressions), post(anchors, scores, regressions), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_predictions_for_other_anchors_are_refused_with_both_numbers() -> None:
    with pytest.raises(InputError, match=r"predictions for 144 anchors.*\(2, 12, 5, 8\)"):
        DetectionPostProcess()(anchors_of()[:1], [torch.zeros(2, 12, 5, 8)], [torch.zeros(2, 12, 6, 8)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DetectionPostProcess(mode="ssd"), r"mode of \('normal', 'yolo'\), got 'ssd'"),
        (lambda: v1(nms_padding_mode="zero"), "got 'zero'"),
        (lambda: AnchorGenerator(((8,), (16,)), ((1.0,),) * 3), "got 2 and 3"),
    ],
    ids=["mode", "padding", "levels"],
)
def test_unknown_arguments_are_refused_with_what_is_known(make: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


def v1(**changes: Any) -> DetectionPostProcessV1:
    settings: dict[str, Any] = {
        "num_classes": CLASSES,
        "box_filter_threshold": 0.5,
        "class_offsets": [0, 10],
        "use_clippings": True,
        "image_size": IMAGE,
        "nms_threshold": 0.4,
        "pre_nms_top_k": 60,
        "post_nms_top_k": 25,
    }
    return DetectionPostProcessV1(**settings | changes)


V1: dict[str, dict[str, Any]] = {
    "plain": {},
    "margin": {"nms_margin": 0.25},
    "sizes": {"bbox_min_hw": (6.0, 9.0)},
    "unclipped": {"use_clippings": False, "image_size": None},
    "few_of_many": {"pre_nms_top_k": 12, "box_filter_threshold": -3.0},
}


@pytest.mark.parametrize("case", V1)
def test_v1_does_what_it_says_on_integers_of_a_sixteenth(case: str) -> None:
    post, anchors = v1(**V1[case]), anchors_of()
    data = [x.mul(16).round().clamp(-128, 127) / 16 for x in maps(4 + CLASSES, 3)]
    for image, found in enumerate(post(data, anchors)):
        candidates = []
        for offset, level, x in zip(post.class_offsets, anchors, data, strict=True):
            for anchor, (*regression, a, b, c, d) in zip(level.tolist(), rows(x, image, 4 + CLASSES), strict=True):
                score = max(a, b, c, d)
                box = plain.decoded(regression, anchor)
                box = plain.clipped(box, *IMAGE) if post.use_clippings else box
                tall, wide = box[3] - box[1] >= post.bbox_min_hw[0], box[2] - box[0] >= post.bbox_min_hw[1]
                if score >= post.box_filter_threshold and tall and wide:
                    candidates.append((box, score, [a, b, c, d].index(score) + offset))
        candidates = best(candidates, post.pre_nms_top_k)
        boxes, scores, classes = (np.array(each, dtype=np.float64) for each in zip(*candidates, strict=True))
        kept = plain.suppressed(boxes, scores, post.nms_threshold, classes, post.nms_margin)[: post.post_nms_top_k]
        assert_detections(found, [candidates[i] for i in kept])


def test_v1_takes_integers_and_rounds_real_values_to_them() -> None:
    data, anchors = maps(4 + CLASSES, 3), anchors_of()
    scale = torch.full((1,), 1 / 16)
    integers = [QTensor((x * 16).round().clamp(-128, 127).to(torch.int8), scale) for x in data]
    for one, other in zip(v1()(integers, anchors), v1()(data, anchors), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("mode", ["pad_zero", "rollover"])
def test_v1_pads_to_the_announced_number(mode: str) -> None:
    data, anchors, many = maps(4 + CLASSES, 3), anchors_of(), 300
    unpadded = v1(post_nms_top_k=many)(data, anchors)
    padded = v1(post_nms_top_k=many, nms_padding_mode=mode)(data, anchors)
    for found, filled in zip(unpadded, padded, strict=True):
        for values, rows_of_all in zip(found, filled, strict=True):
            count = len(values)
            again = values if mode == "rollover" else torch.zeros_like(values)
            assert 0 < count < many / 2
            assert len(rows_of_all) == many
            assert torch.equal(rows_of_all[: 2 * count], torch.cat((values, again)))


@pytest.mark.parametrize("mode", ["pad_zero", "rollover"])
def test_v1_pads_with_zeros_where_nothing_was_found(mode: str) -> None:
    post = v1(nms_padding_mode=mode, box_filter_threshold=100.0)
    for boxes, scores, classes in post(maps(4 + CLASSES, 3), anchors_of()):
        assert (boxes.shape, scores.shape, classes.shape) == ((25, 4), (25,), (25,))
        assert not boxes.any()
        assert not scores.any()
        assert not classes.any()


@pytest.mark.parametrize(
    ("post", "levels", "message"),
    [
        (v1(num_classes=2), 2, "expected 6 values per anchor, four and one for each class, got 8"),
        (v1(image_size=None), 2, "use_clippings needs image_size"),
        (v1(), 1, "2 levels, as many as class_offsets, got 1 and 2"),
    ],
    ids=["classes", "size", "levels"],
)
def test_v1_refuses_what_was_not_announced(post: DetectionPostProcessV1, levels: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        post(maps(4 + CLASSES, 3)[:levels], anchors_of())


@pytest.mark.parametrize("sizes", [None, torch.tensor([[48, 64], [30, 40]])], ids=["fixed", "given"])
def test_rcnn_post_process_does_what_it_says(sizes: Tensor | None) -> None:
    draw = torch.Generator().manual_seed(5)
    corner = torch.rand(50, 2, generator=draw) * 30
    proposals = torch.cat((corner, corner + 4 + torch.rand(50, 2, generator=draw) * 20), 1)
    scores = torch.randn(50, CLASSES + 1, generator=draw).softmax(1)
    deltas = torch.randn(50, (CLASSES + 1) * 4, generator=draw)
    mean, std = (0.1, 0.0, -0.1, 0.2), (0.1, 0.1, 0.2, 0.2)
    post = RcnnPostProcess(IMAGE, 0.3, 0.35, CLASSES, 15, mean, std)
    images = [range(30), range(30, 50)]
    found = post([proposals[:30][None], proposals[30:]], scores[:, :, None, None], deltas[:, :, None, None], sizes)
    assert found.shape == (2, 15, 6)
    for image, indices in enumerate(images):
        height, width = IMAGE if sizes is None else sizes[image].tolist()
        candidates = []
        for i in indices:
            row = scores[i].tolist()
            label = row.index(max(row))
            if label and row[label] >= 0.35:
                chosen = deltas[i, 4 * label : 4 * label + 4].tolist()
                regression = [d * s + m for d, s, m in zip(chosen, std, mean, strict=True)]
                box = plain.clipped(plain.decoded(regression, proposals[i].tolist()), height, width)
                candidates.append((box, row[label], label))
        expected = without_overlaps(candidates, 0.3)[:15]
        filled = [[*box, score, float(label)] for box, score, label in expected]
        filled += [[-1.0] * 6] * (15 - len(filled))
        torch.testing.assert_close(found[image], torch.tensor(filled), rtol=1e-4, atol=1e-3)
    assert bool((found == -1.0).any())
    assert not bool((found == -1.0).all())

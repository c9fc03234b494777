"""Overlap, decoding and non-maximum suppression, against plain loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bpu_qat_nn.detection import nms as nms_module
from bpu_qat_nn.detection import non_maximum_suppression
from bpu_qat_nn.detection.boxes import clipped, decoded, overlap
from bpu_qat_nn.testing import plain_detection as plain


def drawn(count: int, seed: int, levels: int = 1000) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes with corners on whole pixels, scores of so many values, and groups."""
    draw = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 24, (count, 2), generator=draw)
    boxes = torch.cat((corner, corner + torch.randint(0, 16, (count, 2), generator=draw)), 1).double()
    scores = torch.randint(0, levels, (count,), generator=draw).double() / levels
    return boxes, scores, torch.randint(0, 3, (count,), generator=draw)


def test_overlap_is_that_of_all_pairs() -> None:
    boxes, *_ = drawn(40, 0)
    expected = [[plain.overlap(a, b) for b in boxes.tolist()] for a in boxes.tolist()]
    assert overlap(boxes, boxes).tolist() == expected


@pytest.mark.parametrize("in_pixels", [False, True])
def test_decoding_is_that_of_r_cnn(in_pixels: bool) -> None:
    anchors, *_ = drawn(50, 1)
    regressions = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 3
    expected = [
        plain.clipped(plain.decoded(r, a, in_pixels=in_pixels), 20.0, 30.0)
        for r, a in zip(regressions.tolist(), anchors.tolist(), strict=True)
    ]
    found = clipped(decoded(regressions, anchors, in_pixels=in_pixels), 20.0, 30.0)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@settings(max_examples=150, deadline=None)
@given(
    count=st.integers(0, 60),
    seed=st.integers(0, 10**6),
    levels=st.sampled_from([1, 3, 1000]),
    threshold=st.sampled_from([0.0, 0.3, 0.5, 0.99]),
    grouped=st.booleans(),
    margin=st.sampled_from([0.0, 0.2]),
    block=st.sampled_from([1, 7, 1024]),
)
def test_suppression_is_the_greedy_one_in_blocks_of_any_size(
    count: int, seed: int, levels: int, threshold: float, grouped: bool, margin: float, block: int
) -> None:
    boxes, scores, groups = drawn(count, seed, levels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nms_module, "BLOCK", block)
        found = non_maximum_suppression(boxes, scores, threshold, groups=groups if grouped else None, margin=margin)
    of = groups.double().numpy() if grouped else None
    assert found.tolist() == plain.suppressed(boxes.numpy(), scores.numpy(), threshold, of, margin)


def test_suppression_of_a_chain_lets_every_other_box_stay() -> None:
    """Each box removes only the next one, so answers depend on all before: the longest way for the vectorized form."""
    left = torch.arange(200.0)[:, None]
    boxes = torch.cat((left, torch.zeros(200, 1), left + 2.0, torch.ones(200, 1)), 1)
    kept = non_maximum_suppression(boxes, torch.linspace(1, 0, 200), 0.3)
    assert kept.tolist() == list(range(0, 200, 2))


def test_suppression_of_nothing_is_nothing() -> None:
    assert non_maximum_suppression(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []

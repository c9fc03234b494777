"""Folding a BatchNorm: exact within float32, for all layers, and without touching its arguments."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bpu_fx_fusion import FoldedLinear, InputShapeError, fold_batch_norm, fold_refusal

CASES: dict[str, tuple[nn.Module, nn.Module, tuple[int, ...]]] = {
    "conv2d": (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), (2, 4, 5, 5)),
    "conv2d_grouped": (nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), (2, 4, 5, 5)),
    "conv2d_depthwise": (nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4), (2, 4, 5, 5)),
    "conv2d_no_bias": (nn.Conv2d(4, 6, 1, bias=False), nn.BatchNorm2d(6), (2, 4, 5, 5)),
    "conv2d_not_affine": (nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6, affine=False), (2, 4, 5, 5)),
    "conv2d_sync": (nn.Conv2d(4, 6, 1), nn.SyncBatchNorm(6), (2, 4, 5, 5)),
    "conv2d_large_eps": (nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6, eps=0.5), (2, 4, 5, 5)),
    "conv2d_reflect": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(6), (2, 4, 5, 5)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2), nn.BatchNorm2d(6), (2, 4, 5, 5)),
    "transposed_grouped": (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), nn.BatchNorm2d(6), (2, 4, 5, 5)),
    "transposed_depthwise": (nn.ConvTranspose2d(4, 4, 2, stride=2, groups=4), nn.BatchNorm2d(4), (2, 4, 5, 5)),
    "transposed_no_bias": (nn.ConvTranspose2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), (2, 4, 5, 5)),
    "conv3d": (nn.Conv3d(4, 6, 2), nn.BatchNorm3d(6), (2, 4, 3, 3, 3)),
    "linear": (nn.Linear(4, 6), nn.BatchNorm1d(6), (5, 4)),
    "linear_no_bias": (nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), (5, 4)),
    "linear_sync": (nn.Linear(4, 6), nn.SyncBatchNorm(6), (5, 4)),
}


def evaluated_in_float64(conv: nn.Module, bn: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return bn(conv(x)) by the definition of BatchNorm in float64."""
    wide: Any = copy.deepcopy(bn).double()
    y = copy.deepcopy(conv).double()(x.double())
    shape = (1, -1) + (1,) * (y.dim() - 2)
    normalised = (y - wide.running_mean.view(shape)) / torch.sqrt(wide.running_var.view(shape) + wide.eps)
    affine = wide.weight is not None
    result: torch.Tensor = normalised * wide.weight.view(shape) + wide.bias.view(shape) if affine else normalised
    return result


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_the_folded_layer_equals_layer_and_batch_norm(
    case: str, training: bool, randomize: Callable[[nn.Module], nn.Module]
) -> None:
    conv, bn, shape = CASES[case]
    randomize(bn)
    conv.train(training)
    bn.train(training)
    before = copy.deepcopy((conv.state_dict(), bn.state_dict()))
    x = torch.randn(shape)

    folded = fold_batch_norm(conv, bn)

    with torch.no_grad():
        torch.testing.assert_close(folded(x).double(), evaluated_in_float64(conv, bn, x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close((conv.state_dict(), bn.state_dict()), before, rtol=0, atol=0)
    assert (conv.training, bn.training, folded.training) == (training,) * 3
    assert fold_refusal(conv, bn) is None
    assert type(folded) is (FoldedLinear if isinstance(conv, nn.Linear) else type(conv))


@settings(max_examples=40, deadline=None)
@given(
    groups=st.integers(1, 4),
    in_per_group=st.integers(1, 3),
    out_per_group=st.integers(1, 3),
    transposed=st.booleans(),
    bias=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_any_grouping_folds_right(
    groups: int, in_per_group: int, out_per_group: int, transposed: bool, bias: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = nn.ConvTranspose2d if transposed else nn.Conv2d
    conv: nn.Module = layer(groups * in_per_group, groups * out_per_group, 2, groups=groups, bias=bias)
    bn = nn.BatchNorm2d(groups * out_per_group)
    assert bn.running_mean is not None
    assert bn.running_var is not None
    bn.running_mean.uniform_(-1, 1)
    bn.running_var.uniform_(0.1, 2)
    nn.init.uniform_(bn.weight, -2, 2)
    x = torch.randn(1, groups * in_per_group, 3, 3)

    folded = fold_batch_norm(conv.double(), bn.double())

    torch.testing.assert_close(folded(x.double()), evaluated_in_float64(conv, bn, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_attributes_and_trainability_are_kept(trainable: bool, dtype: torch.dtype) -> None:
    conv = nn.Conv2d(2, 2, 1, bias=False).to(dtype).requires_grad_(trainable)
    vars(conv)["qconfig"] = "mine"

    folded: Any = fold_batch_norm(conv, nn.BatchNorm2d(2))

    assert folded.qconfig == "mine"
    for parameter in (folded.weight, folded.bias):
        assert isinstance(parameter, nn.Parameter)
        assert (parameter.dtype, parameter.requires_grad) == (dtype, trainable)
    assert conv.bias is None


def test_gradients_reach_the_folded_parameters() -> None:
    folded: Any = fold_batch_norm(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))

    folded(torch.ones(1, 2, 2, 2)).sum().backward()

    assert folded.weight.grad is not None
    assert folded.bias.grad is not None


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4), (2, 3, 3, 4)], ids=["1d", "3d", "4d"])
def test_a_folded_linear_refuses_what_batch_norm_would_have_normalised_otherwise(shape: tuple[int, ...]) -> None:
    folded = fold_batch_norm(nn.Linear(4, 3), nn.BatchNorm1d(3))

    with pytest.raises(InputShapeError, match=r"takes input of shape \(N, features\).*absorb_batch_norm=False"):
        folded(torch.ones(shape))


REFUSED: dict[str, tuple[nn.Module, nn.Module, str]] = {
    "linear_2d": (
        nn.Linear(2, 3),
        nn.BatchNorm2d(3),
        "BatchNorm2d normalises axis 1 but Linear's features are the last axis",
    ),
    "linear_features": (
        nn.Linear(2, 3),
        nn.BatchNorm1d(4),
        "Linear has 3 outputs but BatchNorm1d normalises 4 features",
    ),
    "conv2d_1d": (nn.Conv2d(2, 3, 1), nn.BatchNorm1d(3), "BatchNorm1d does not take the output of Conv2d"),
    "conv2d_3d": (nn.Conv2d(2, 3, 1), nn.BatchNorm3d(3), "BatchNorm3d does not take the output of Conv2d"),
    "conv3d_2d": (nn.Conv3d(2, 3, 1), nn.BatchNorm2d(3), "BatchNorm2d does not take the output of Conv3d"),
    "no_statistics": (
        nn.Conv2d(2, 3, 1),
        nn.BatchNorm2d(3, track_running_stats=False),
        "BatchNorm2d has no running statistics (track_running_stats=False)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_pairs_that_make_no_sense_are_refused_with_a_reason(case: str) -> None:
    conv, bn, reason = REFUSED[case]

    assert fold_refusal(conv, bn) == reason

"""Fused modules: their names, children and arithmetic."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import bpu_fx_fusion
from bpu_fx_fusion import FUSED_CLASSES, FusedModule, fused_class, is_registered_leaf

LAYERS: dict[type[nn.Module], tuple[nn.Module, nn.Module, tuple[int, ...]]] = {
    nn.Conv2d: (nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), (2, 2, 4, 4)),
    nn.ConvTranspose2d: (nn.ConvTranspose2d(2, 3, 2), nn.BatchNorm2d(3), (2, 2, 4, 4)),
    nn.Conv3d: (nn.Conv3d(2, 3, 1), nn.BatchNorm3d(3), (2, 2, 4, 4, 4)),
    nn.Linear: (nn.Linear(2, 3), nn.BatchNorm1d(3), (5, 2)),
}


@pytest.mark.parametrize("key", FUSED_CLASSES, ids=lambda key: FUSED_CLASSES[key].__name__)
def test_every_class_computes_the_chain_that_its_name_says(key: Any) -> None:
    conv_type, has_bn, has_add, relu_type = key
    layer, batch_norm, shape = LAYERS[conv_type]
    bn = batch_norm if has_bn else None
    relu = relu_type() if relu_type else None
    module = FUSED_CLASSES[key](layer, bn, relu).eval()
    x = torch.randn(shape)
    y = layer(x)
    residual = [torch.randn_like(y) * 9] if has_add else []

    expected = bn.eval()(y) if bn else y
    expected = expected + residual[0] if has_add else expected
    expected = relu(expected) if relu else expected

    torch.testing.assert_close(module(x, *residual), expected, rtol=0, atol=0)
    assert [name for name, _ in module.named_children()] == ["conv", *["bn"] * has_bn, *["relu"] * bool(relu)]
    assert is_registered_leaf(module)
    for copied in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        torch.testing.assert_close(copied(x, *residual), expected, rtol=0, atol=0)


def test_class_names_are_the_vendors_and_the_names_they_are_exported_by() -> None:
    names = {cls.__name__ for cls in FUSED_CLASSES.values()}

    assert len(names) == len(FUSED_CLASSES) == 44
    assert all(getattr(bpu_fx_fusion, name).__name__ == name for name in names)
    assert {"ConvReLU2d", "ConvReLU62d", "ConvAdd2d", "ConvAddReLU2d", "ConvAddReLU62d", "ConvBN2d"} <= names
    assert {"ConvTransposeAddReLU2d", "ConvReLU3d", "LinearReLU6", "LinearAddReLU", "ConvBNAddReLU2d"} <= names


def test_classes_can_be_looked_up_by_their_parts() -> None:
    assert fused_class(nn.Conv2d, add=True, relu=nn.ReLU6) is bpu_fx_fusion.ConvAddReLU62d
    assert issubclass(fused_class(nn.Linear, bn=True), FusedModule)
    assert bpu_fx_fusion.ConvBNAddReLU2d.__doc__ == "Conv2d + BatchNorm + addition + ReLU as one module."

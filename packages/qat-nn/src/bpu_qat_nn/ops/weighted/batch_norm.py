"""Batch normalization that no layer took in: a depthwise 1 x 1 convolution."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import nn

from bpu_fx_fusion import ConvBN2d, batch_norm_of_maps
from bpu_kernels.dtypes import QuantDType
from bpu_kernels.march import MarchRow
from bpu_qconfig import QConfig

from ...op import OpRow
from ...qtensor import QTensor
from .conv import QATConv2d, QuantizedConv2d

__all__ = ["ROWS"]


def as_convolution(bn: Any) -> nn.Module:
    """Return a depthwise convolution by ones, followed by the normalization."""
    conv = nn.Conv2d(bn.num_features, bn.num_features, 1, groups=bn.num_features, bias=False)
    conv.to(bn.running_var.device).requires_grad_(False)
    torch.nn.init.ones_(conv.weight)
    of_maps = batch_norm_of_maps(bn) if isinstance(bn, (nn.BatchNorm1d, nn.BatchNorm3d)) else bn
    fused = ConvBN2d(conv, of_maps)
    fused.training = bn.training
    return fused


class QATBatchNorm2d(QATConv2d):
    """Batch normalization by itself, under quantization-aware training."""

    def __init__(self, source: nn.Module, qconfig: QConfig, row: MarchRow, path: str = "") -> None:
        super().__init__(as_convolution(source), qconfig, row, path)

    @classmethod
    def limits(
        cls, module: nn.Module, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """Running statistics are needed; then the limits of a 1 x 1 convolution hold."""
        if getattr(module, "running_var", None) is None:
            return ["track_running_stats=False, since running statistics are needed"]
        return super().limits(as_convolution(module), row, dtype, inputs)


class OfAnyRank:
    """Sees a tensor (N, C, ...) as a map (N, C, L, 1)."""

    def forward(self, *inputs: Any) -> QTensor:
        """Reshape, normalize, reshape back."""
        x = inputs[0]
        batch, channels, *space = x.shape
        as_map = x.reshape([batch, channels, prod(space), 1])
        y: Any = super().forward(as_map)  # type: ignore[misc]
        result: QTensor = y.reshape(x.shape)
        return result


class QuantizedBatchNorm(OfAnyRank, QuantizedConv2d):
    """Batch normalization of integers that are no map."""


class QATBatchNorm(OfAnyRank, QATBatchNorm2d):
    """Batch normalization of what is no map, under quantization-aware training."""

    quantized = QuantizedBatchNorm


ROWS = (
    OpRow(
        name="BatchNorm",
        floats=(nn.BatchNorm1d, nn.BatchNorm3d),
        qat=QATBatchNorm,
        kernels=("conv2d", "reshape"),
        note="Only where it could not be folded into a layer before it.",
    ),
    OpRow(
        name="BatchNorm2d",
        floats=(nn.BatchNorm2d, nn.SyncBatchNorm),
        qat=QATBatchNorm2d,
        kernels=("conv2d",),
        note="Only where it could not be folded into a layer before it.",
    ),
)

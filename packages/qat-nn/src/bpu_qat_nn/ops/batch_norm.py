"""Batch normalization that no layer took in: a depthwise 1 x 1 convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from bpu_fx_fusion import ConvBN2d
from bpu_kernels.dtypes import QuantDType
from bpu_kernels.march import MarchRow
from bpu_qconfig import QConfig

from ..op import OpRow
from .conv import QATConv2d

__all__ = ["ROWS"]


def as_convolution(bn: Any) -> nn.Module:
    """Return a depthwise convolution by ones, followed by the normalization."""
    conv = nn.Conv2d(bn.num_features, bn.num_features, 1, groups=bn.num_features, bias=False)
    conv.to(bn.running_var.device).requires_grad_(False)
    torch.nn.init.ones_(conv.weight)
    fused = ConvBN2d(conv, bn)
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


ROWS = (
    OpRow(
        name="BatchNorm2d",
        floats=(nn.BatchNorm2d, nn.SyncBatchNorm),
        qat=QATBatchNorm2d,
        kernels=("conv2d",),
        note="Only where it could not be folded into a layer before it.",
    ),
)

"""A part of composites: tensors that one module gave in several calls, joined; they have one scale."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from bpu_kernels.ops.concat import Concat

from ...op import Operator, Output
from ...qat_module import QATModule
from ...qtensor import QTensor
from ...quantized_module import QuantizedModule

__all__ = ["Joined", "QATJoin"]


class Joined(nn.Module):
    """Results of one module joined along an axis: they have one scale, so integers are copied."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim


class JoinOperator(Operator):
    """Concatenation of tensors of one scale."""

    own_scale: ClassVar[bool] = False
    keeps_grid: ClassVar[bool] = True
    config: ClassVar[tuple[str, ...]] = ("dim",)
    dim: int

    def real(self, *inputs: Tensor) -> Tensor:
        """Join."""
        return torch.cat(inputs, self.dim)

    def steps(self, out: Output, *inputs: QTensor) -> QTensor:
        """Copy."""
        return inputs[0].invoke(Concat(axis=self.dim), self.row, *inputs, scale=out.scale, dtype=out.dtype)


class QuantizedJoin(JoinOperator, QuantizedModule):
    """Concatenation of integers of one scale."""


class QATJoin(JoinOperator, QATModule):
    """The same under quantization-aware training."""

    quantized = QuantizedJoin

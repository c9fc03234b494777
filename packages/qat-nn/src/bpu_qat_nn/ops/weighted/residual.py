"""The residual where 16 bits take part: it is added behind the layer, since the fused addition takes int8 alone.

The layer then gives int16 at a scale that holds every sum and residual which the output's own scale can tell apart, so
that nothing saturates before the addition that would not after it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from bpu_kernels.dtypes import QuantDType, qint16, qint32

from ...op import Operator, Output
from ...qtensor import QTensor
from ..arithmetic import add
from ..clip import clip_steps

__all__ = ["add_behind", "before_addition", "is_added_behind"]


def is_added_behind(inputs: Sequence[QuantDType | None], out: QuantDType) -> bool:
    """Whether a residual is added behind its layer, given the types of the layer's input, residual and output."""
    return qint16 in inputs and out is not qint32


def before_addition(operator: Operator, out: Output, residual: QTensor) -> Output:
    """Return scale and type of the layer's output before the residual is added."""

    def build_scale() -> Tensor:
        return (out.scale * -out.dtype.min + residual.scale * -residual.dtype.min) / -qint16.min

    return Output(operator.derived.get([out, residual], build_scale, "before"), qint16)


def add_behind(operator: Operator, out: Output, y: QTensor, residual: QTensor, relu: str | None) -> QTensor:
    """Add the residual to what the layer gave, and clip as the layer's ReLU would."""
    total = add(operator, out, y, residual)
    low, high = (-math.inf if relu is None else 0.0), (6.0 if relu == "relu6" else math.inf)
    return clip_steps(total, low, high, operator)

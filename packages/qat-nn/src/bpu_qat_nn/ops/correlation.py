"""Correlation of two feature maps: windows of both, multiplied, and averaged over their channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from bpu_fx_fusion import Abs, Correlation, FloatFunctional, correlation_displacements, correlation_windows
from bpu_kernels.dtypes import qint16

from ..op import OpRow
from ..qtensor import QTensor
from .composites.composite import CompositeOperator, Part, QATComposite, QuantizedComposite
from .composites.joined import Joined, QATJoin
from .functional import QATFloatFunctional
from .pad import QATPad
from .table import QATTable

__all__ = ["ROWS"]


class CorrelationOperator(CompositeOperator):
    """A channel for each displacement; the products have 16 bits."""

    config: ClassVar[tuple[str, ...]] = (
        *("kernel_size", "max_displacement", "stride1", "stride2", "pad_size", "is_multiply"),
    )
    fixed: ClassVar[tuple[str, ...]] = config
    kernel_size: int
    max_displacement: int
    stride1: int
    stride2: int
    pad_size: int
    is_multiply: bool

    def combine(self, *inputs: Any, **options: Any) -> QTensor:
        """Compare at every displacement."""
        part: Any = self
        x, y = (pad(each) for pad, each in zip((part.pad_x, part.pad_y), inputs, strict=True))
        patches, means = self._joined(part.windows_x, x, 0, 0), []
        for down, right in correlation_displacements(self):
            moved = self._joined(part.windows_y, y, down, right)
            if self.is_multiply:
                compared = part.product.mul(patches, moved)
            else:
                compared = part.absolute(part.difference.sub(patches, moved))
            means.append(part.mean.mean(compared, 1, keepdim=True))
        joined: QTensor = part.channels(*means) if len(means) > 1 else means[0]
        return joined

    def _joined(self, join: Any, x: Any, down: int, right: int) -> QTensor:
        found = list(correlation_windows(self, x, down, right))
        joined: QTensor = join(*found) if len(found) > 1 else found[0]
        return joined


class QuantizedCorrelation(CorrelationOperator, QuantizedComposite):
    """Correlation of integers."""


class QATCorrelation(CorrelationOperator, QATComposite):
    """Correlation under quantization-aware training."""

    quantized = QuantizedCorrelation

    def parts(self, source: Any) -> Mapping[str, Part]:
        """Comparison and mean have scales of their own."""
        compared: dict[str, Part] = (
            {"product": (QATFloatFunctional, FloatFunctional(), qint16)}
            if source.is_multiply
            else {"difference": (QATFloatFunctional, FloatFunctional(), qint16), "absolute": (QATTable, Abs(), qint16)}
        )
        return {
            **{name: (QATPad, nn.ZeroPad2d(source.pad_size), None) for name in ("pad_x", "pad_y")},
            **{name: (QATJoin, Joined(1), None) for name in ("windows_x", "windows_y")},
            **compared,
            "mean": (QATFloatFunctional, FloatFunctional(), None),
            "channels": (QATJoin, Joined(1), None),
        }


ROWS = (
    OpRow(
        name="Correlation",
        floats=(Correlation,),
        qat=QATCorrelation,
        kernels=("pad", "slice", "concat", "mul", "conv2d"),
        note="A product of 16 bits and a mean for each displacement; the vendor's own rule is not known.",
    ),
)

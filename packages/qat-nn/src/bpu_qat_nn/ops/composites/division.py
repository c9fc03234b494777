"""Division of tensors, and lengths of vectors: a table of 16 bits between products."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from bpu_fx_fusion import Div, FloatFunctional, Normalize, VectorNorm
from bpu_kernels.dtypes import qint16

from ...op import OpRow
from ...qtensor import QTensor
from ..functional import QATFloatFunctional
from ..table import QATTable
from .composite import CompositeOperator, Part, QATComposite, QuantizedComposite

__all__ = ["ROWS"]


class Inverse(nn.Module):
    """1 / x, and 0 for x = 0: a small divisor may be rounded to 0, where training must go on."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the inverse."""
        return x.masked_fill(x == 0, math.inf).reciprocal()


class InverseRoot(nn.Module):
    """1 / max(sqrt(x), eps), and 0 for x = 0, whose inverse would widen the range of all others."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the inverse of the root; its gradient at 0 is 0."""
        return x.clamp(min=self.eps**2).masked_fill(x <= 0, math.inf).rsqrt()


class Root(nn.Module):
    """sqrt(x), whose gradient at 0 is 0, as that of a vector's length."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the root; 0 for x < 0."""
        return x.masked_fill(x <= 0, 1).sqrt().masked_fill(x <= 0, 0)


class DivOperator(CompositeOperator):
    """``x * (1 / y)``."""

    def combine(self, *inputs: Any, **options: Any) -> QTensor:
        """Multiply by the inverse."""
        part: Any = self
        result: QTensor = part.product.mul(inputs[0], part.inverse(inputs[1]))
        return result


class QuantizedDiv(DivOperator, QuantizedComposite):
    """Division of integers."""


class QATDiv(DivOperator, QATComposite):
    """Division under quantization-aware training."""

    quantized = QuantizedDiv

    def parts(self, source: nn.Module) -> Mapping[str, Part]:
        """The inverse has 16 bits."""
        return {
            "inverse": (QATTable, Inverse(), qint16),
            "product": (QATFloatFunctional, FloatFunctional(), None),
        }


class LengthOperator(CompositeOperator):
    """``sqrt(sum(x**2))``, or x divided by that."""

    config: ClassVar[tuple[str, ...]] = ("dim", "keepdim", "divides")
    fixed: ClassVar[tuple[str, ...]] = ("divides",)
    dim: Any
    keepdim: bool
    divides: bool

    def combine(self, *inputs: Any, **options: Any) -> QTensor:
        """Square, sum, take the root or its inverse."""
        part: Any = self
        x = inputs[0]
        squares = part.total.sum(part.square.mul(x, x), self.dim, keepdim=self.keepdim)
        result: QTensor = part.product.mul(x, part.inverse(squares)) if self.divides else part.root(squares)
        return result

    def extra_repr(self) -> str:
        """Axes."""
        return f"dim={self.dim}"


class QuantizedLength(LengthOperator, QuantizedComposite):
    """Euclidean length of integers."""


class QATLength(LengthOperator, QATComposite):
    """Euclidean length under quantization-aware training."""

    quantized = QuantizedLength

    def configure(self, source: Any) -> None:
        """Note the axes."""
        self.dim, self.divides = source.dim, isinstance(source, Normalize)
        self.keepdim = True if self.divides else source.keepdim

    def parts(self, source: Any) -> Mapping[str, Part]:
        """Squares and their sum have 16 bits."""
        ends: dict[str, Part] = {"root": (QATTable, Root(), None)}
        if self.divides:
            ends = {
                "inverse": (QATTable, InverseRoot(source.eps), qint16),
                "product": (QATFloatFunctional, FloatFunctional(), None),
            }
        return {
            "square": (QATFloatFunctional, FloatFunctional(), qint16),
            "total": (QATFloatFunctional, FloatFunctional(), qint16),
            **ends,
        }


_NOTE = "Computed in known operators with 16 bits between; the vendor's own rule is not known."

ROWS = (
    OpRow(
        name="div",
        floats=(Div,),
        qat=QATDiv,
        kernels=("lut16", "mul", "rescale"),
        note=f"{_NOTE} A divisor that is rounded to 0 gives 0.",
    ),
    OpRow(
        name="normalize",
        floats=(Normalize, VectorNorm),
        qat=QATLength,
        kernels=("mul", "conv2d", "lut16", "rescale"),
        note=_NOTE,
    ),
)

"""Softmax in known operators: ``exp(x - max) * (1 / sum)``, with 16 bits between input and output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from bpu_fx_fusion import Amax, Exp, FloatFunctional
from bpu_kernels.dtypes import qint16

from ...op import OpRow
from ...qtensor import QTensor
from ..extremum import QATExtremum
from ..functional import QATFloatFunctional
from ..table import QATTable
from .composite import CompositeOperator, Part, QATComposite, QuantizedComposite

__all__ = ["ROWS", "SOFTMAX_KERNELS", "QATSoftmax"]

SOFTMAX_KERNELS = ("reduce_extremum", "add", "lut16", "conv2d", "mul", "rescale")


class InverseOfSum(nn.Module):
    """1 / x of a positive x; as it is constant elsewhere, its table holds nothing but what occurs."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the inverse."""
        return x.clamp(min=1e-9).reciprocal()


class SoftmaxOperator(CompositeOperator):
    """Softmax along one axis."""

    config: ClassVar[tuple[str, ...]] = ("dim",)
    dim: int | None
    peak: Any

    def combine(self, *inputs: Any, **options: Any) -> QTensor:
        """Shift by the largest, exponentiate, divide by the sum."""
        x = inputs[0]
        dim = self.dim if self.dim is not None else (0 if len(x.shape) in (0, 1, 3) else 1)
        part: Any = self
        shifted = part.shift.sub(x, part.peak_along(dim)(x))
        exponential = part.exp(shifted)
        inverse = part.inverse(part.total.sum(exponential, dim, keepdim=True))
        result: QTensor = part.product.mul(exponential, inverse)
        return result

    def peak_along(self, dim: int) -> Any:
        """Return the part that finds the largest, set to an axis."""
        self.peak.dim = dim
        return self.peak

    def extra_repr(self) -> str:
        """Axis."""
        return f"dim={self.dim}"


class QuantizedSoftmax(SoftmaxOperator, QuantizedComposite):
    """Softmax of integers."""


class QATSoftmax(SoftmaxOperator, QATComposite):
    """Softmax under quantization-aware training."""

    quantized = QuantizedSoftmax

    def parts(self, source: nn.Module) -> Mapping[str, Part]:
        """Everything but the result has 16 bits."""
        return {
            "peak": (QATExtremum, Amax(-1, keepdim=True), None),
            "shift": (QATFloatFunctional, FloatFunctional(), qint16),
            "exp": (QATTable, Exp(), qint16),
            "total": (QATFloatFunctional, FloatFunctional(), qint16),
            "inverse": (QATTable, InverseOfSum(), qint16),
            "product": (QATFloatFunctional, FloatFunctional(), None),
        }


ROWS = (
    OpRow(
        name="Softmax",
        floats=(nn.Softmax,),
        qat=QATSoftmax,
        kernels=SOFTMAX_KERNELS,
        note="Computed in known operators, exactly as the parts compute; the vendor's own rule is not known.",
    ),
)

"""Choosing by a mask: torch.where and masked_fill, as products with masks of 0 and 1 whose sum cannot overflow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bpu_fx_fusion import MaskedFill, Where
from bpu_kernels.dtypes import QuantDType, qint16
from bpu_kernels.march import MarchRow

from ..op import Operator, OpRow, Output, type_problems
from ..qat_module import QATModule
from ..qtensor import QTensor
from ..quantized_module import QuantizedModule
from .composites.composite import CompositeOperator, Part, QATComposite, QuantizedComposite
from .masks import as_mask, chosen, inverse_of, joined, kept, level
from .rescale import rescale

__all__ = ["ROWS", "QATMaskedFill"]

MASKS_OUT = -1e4
"""A number up to here, as it is filled in before a softmax, stands for minus infinity."""
BELOW = 32.0
"""Such a number becomes one so far below the smallest element: exp(-32) is 1e-14."""


class WhereOperator(Operator):
    """``where(condition, x, y)``; x and y are brought to the output's scale first."""

    def real(self, *inputs: Tensor) -> Tensor:
        """Choose."""
        return torch.where(inputs[0] != 0, inputs[1], inputs[2])

    def steps(self, out: Output, *inputs: QTensor) -> QTensor:
        """Choose."""
        x, y = (rescale(self, each, out) for each in inputs[1:])
        return chosen(self, as_mask(self, inputs[0]), x, y)


class QuantizedWhere(WhereOperator, QuantizedModule):
    """Choice of integers."""


class QATWhere(WhereOperator, QATModule):
    """Choice under quantization-aware training."""

    quantized = QuantizedWhere

    @classmethod
    def limits(
        cls, module: nn.Module, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """Types of the march; not where products are compensated."""
        return _mask_problems(row, [dtype, *inputs])


def _mask_problems(row: MarchRow, types: Sequence[QuantDType | None]) -> list[str]:
    found = type_problems(types, row.activations)
    return found if row.rounds else [*found, "products with masks, which it does not compute exactly"]


class FillOperator(Operator):
    """``x.masked_fill(mask, value)``; a value that masks out becomes the lowest step."""

    config: ClassVar[tuple[str, ...]] = ("value", "inverted")
    value: float
    inverted: bool

    def real(self, *inputs: Tensor) -> Tensor:
        """Fill."""
        x, mask = inputs[0], (inputs[1] != 0) != self.inverted
        low = x.detach().amin().clamp(max=0.0) - BELOW if x.numel() else x.new_zeros(())
        return torch.where(mask, low if self.value <= MASKS_OUT else self.value, x)

    def steps(self, out: Output, *inputs: QTensor) -> QTensor:
        """Fill with the nearest step."""
        mask, x = as_mask(self, inputs[1]), rescale(self, inputs[0], out)
        elsewhere = inverse_of(self, mask)
        filled, left = (elsewhere, mask) if self.inverted else (mask, elsewhere)

        def build() -> int:
            return round(min(max(self.value / float(out.scale), out.dtype.min), out.dtype.max))

        step = out.dtype.min if self.value <= MASKS_OUT else self.derived.get([out], build, "fill")
        y = kept(self, x, left)
        return y if step == 0 else joined(self, y, level(self, filled, step, out))


class QuantizedFill(FillOperator, QuantizedModule):
    """Masked fill of integers."""


class QATFill(FillOperator, QATModule):
    """Masked fill under quantization-aware training."""

    quantized = QuantizedFill


class MaskedFillOperator(CompositeOperator):
    """A fill whose output has 16 bits where the value masks out, since that spreads the range."""

    def combine(self, *inputs: Any, **options: Any) -> QTensor:
        """Fill."""
        part: Any = self
        mask = inputs[1] if len(inputs) > 1 else options["mask"]
        result: QTensor = part.fill(inputs[0], mask)
        return result


class QuantizedMaskedFill(MaskedFillOperator, QuantizedComposite):
    """Masked fill of integers."""


class QATMaskedFill(MaskedFillOperator, QATComposite):
    """Masked fill under quantization-aware training."""

    quantized = QuantizedMaskedFill
    options: ClassVar[frozenset[str]] = frozenset({"mask"})

    def parts(self, source: Any) -> Mapping[str, Part]:
        """The fill."""
        return {"fill": (QATFill, source, qint16 if source.value <= MASKS_OUT else None)}

    @classmethod
    def limits(
        cls, module: Any, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """Types of the march; not where products are compensated; a value that is a number."""
        found = _mask_problems(row, [dtype, *inputs])
        return [*found, f"value {module.value}"] if math.isnan(module.value) or module.value == math.inf else found


ROWS = (
    OpRow(
        name="where",
        floats=(Where,),
        qat=QATWhere,
        kernels=("lut8", "lut16", "rescale", "mul", "add"),
        note="The condition is a comparison, a constant, or an input through a QuantStub of its own; what is not 0 "
        "holds.",
    ),
    OpRow(
        name="masked_fill",
        floats=(MaskedFill,),
        qat=QATMaskedFill,
        kernels=("lut8", "lut16", "rescale", "mul", "add"),
        note=f"Also where with a number. A value of {MASKS_OUT:g} or less means minus infinity: it becomes the lowest "
        f"step of a 16-bit output whose range reaches {BELOW:g} below the smallest element.",
    ),
)

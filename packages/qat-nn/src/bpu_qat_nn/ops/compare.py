"""Comparisons: masks of 0 and 1 with scale 1, by tables of a number or of the difference of two tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from bpu_fx_fusion import Comparison, Eq, FloatFunctional, Ge, Gt, Le, Lt, Ne
from bpu_kernels.dtypes import QuantDType, qint8, qint16
from bpu_kernels.march import MarchRow

from ..op import OpRow, type_problems
from ..qtensor import QTensor, plain
from .composites.composite import CompositeOperator, Part, QATComposite, QuantizedComposite
from .functional import QATFloatFunctional
from .masks import compared

__all__ = ["ROWS"]


class ComparisonOperator(CompositeOperator):
    """``x < number``, or ``x - y < 0``."""

    own_scale: ClassVar[bool] = False
    config: ClassVar[tuple[str, ...]] = ("relation", "number")
    relation: str
    number: float | None

    def combine(self, *inputs: Any, **options: Any) -> QTensor:
        """Compare; a mask has no gradient."""
        part: Any = self
        x = inputs[0] if self.number is not None else part.difference.sub(*inputs, *options.values())
        number = 0.0 if self.number is None else self.number
        if x.holds_steps:
            return compared(self, x, number, self.relation)
        if not x.on_grid:
            truths = getattr(torch, self.relation)(plain(x), number)
            return QTensor(truths.to(plain(x).dtype), torch.ones_like(x.scale), None, qint8, on_grid=False)
        with torch.no_grad():
            steps = compared(self, x.as_steps(), number, self.relation)
        return QTensor(steps.dequantize(), steps.scale, None, steps.dtype, steps=plain(steps))

    def extra_repr(self) -> str:
        """Relation."""
        return f"{self.relation}" if self.number is None else f"{self.relation} {self.number}"


class QuantizedComparison(ComparisonOperator, QuantizedComposite):
    """Comparison of integers."""


class QATComparison(ComparisonOperator, QATComposite):
    """Comparison under quantization-aware training."""

    quantized = QuantizedComparison
    options: ClassVar[frozenset[str]] = frozenset({"y"})

    def configure(self, source: Any) -> None:
        """Note relation and number."""
        self.relation = _RELATIONS[type(source)]
        self.number = source.number

    def parts(self, source: Any) -> Mapping[str, Part]:
        """Two tensors are compared by their difference, of 16 bits."""
        if source.number is not None:
            return {}
        return {"difference": (QATFloatFunctional, FloatFunctional(), qint16)}

    @classmethod
    def limits(
        cls, module: Any, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """Types of the march; 16 bits for the difference of two tensors."""
        if module.number is not None:
            return type_problems(inputs, row.activations)
        return super().limits(module, row, dtype, inputs)


_RELATIONS: dict[type[Comparison], str] = {Eq: "eq", Ge: "ge", Gt: "gt", Le: "le", Lt: "lt", Ne: "ne"}
"""Float module -> torch's name of the relation."""

ROWS = (
    OpRow(
        name="comparison",
        floats=tuple(_RELATIONS),
        qat=QATComparison,
        kernels=("lut8", "add", "lut16", "rescale", "mul"),
        note="Gives 0 and 1 with scale 1. Two tensors are compared by their difference of 16 bits, so numbers that "
        "differ by less than a 65536th of its range count as equal.",
    ),
)

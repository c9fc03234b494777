"""The map of PointPillars: features of pillars, taken by the row that each place of the map has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from bpu_kernels.dtypes import QuantDType, qint16
from bpu_kernels.march import MarchRow
from bpu_kernels.ops.choose import Gather
from bpu_kernels.ops.layout import Pad

from ..detection.pillars import PillarMap
from ..errors import InputError
from ..op import Operator, OpRow, Output
from ..qat_module import QATModule
from ..qtensor import QTensor
from ..quantized_module import QuantizedModule
from .choose import gather_problems

__all__ = ["ROWS"]

MOST_PILLARS = qint16.max
"""The number that stands for an empty place; it is one behind the last row."""


class PillarMapOperator(Operator):
    """Features [M, C] and places [1, N * H * W] to [N, C, H, W]; integers are only chosen, so the scale stays."""

    own_scale: ClassVar[bool] = False
    keeps_grid: ClassVar[bool] = True

    def mapped(self, out: Output, sizes: Sequence[int], features: Any, places: Any) -> QTensor:
        """Take each place's row of the features, behind which a row of zeros stands for none."""
        (count, channels), (batch, height, width) = features.shape, sizes
        if count > MOST_PILLARS or places.dtype is not qint16:
            raise InputError(
                f"{self.label} expected at most {MOST_PILLARS} pillars and places of {qint16}, got {count} and "
                f"{places.dtype}"
            )
        rows = features.reshape([1, count, channels])
        rows = rows.invoke(Pad(before=(0, 0, 0), after=(0, 1, 0)), self.row, rows, scale=out.scale, dtype=out.dtype)
        index = places.reshape([1, -1, 1]).expand(1, -1, channels)
        found = rows.invoke(Gather(axis=1), self.row, rows, index, scale=out.scale, dtype=out.dtype)
        result: QTensor = found.reshape([batch, height, width, channels]).permute(0, 3, 1, 2)
        return result


class QuantizedPillarMap(PillarMapOperator, QuantizedModule):
    """A map of integers."""

    def forward(self, features: QTensor, places: QTensor, sizes: Sequence[int]) -> QTensor:  # type: ignore[override]
        """Take."""
        return self.mapped(Output(features.scale, features.dtype), [int(each) for each in sizes], features, places)


class QATPillarMap(PillarMapOperator, QATModule):
    """A map under quantization-aware training."""

    quantized = QuantizedPillarMap

    def forward(self, features: QTensor, places: QTensor, sizes: Sequence[int]) -> QTensor:  # type: ignore[override]
        """Take."""
        lengths = [int(each) for each in sizes]

        def real(*values: Tensor) -> Tensor:
            result: Tensor = PillarMap()(*values, lengths)
            return result

        def steps(out: Output, *values: QTensor) -> QTensor:
            return self.mapped(out, lengths, *values)

        return self.compute(real, steps, (features, places))

    @classmethod
    def limits(
        cls, module: nn.Module, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """A march that has elements by index."""
        return gather_problems(row)


ROWS = (
    OpRow(
        name="PointPillarsScatter",
        floats=(PillarMap,),
        qat=QATPillarMap,
        kernels=("pad", "gather", "concat", "slice"),
        note="In ``bpu_qat_nn.detection.PointPillarsScatter``. Coordinates are real values; which pillar is where is "
        "computed on the CPU and enters through a QuantStub that ``prepare_qat_fx`` inserts. At most "
        f"{MOST_PILLARS} pillars.",
    ),
)

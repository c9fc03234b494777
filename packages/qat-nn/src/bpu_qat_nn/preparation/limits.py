"""What a march refuses of one module, as (reason, way out): its qconfig first, then the module with its types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from bpu_kernels.dtypes import QuantDType, qint8, qint32
from bpu_kernels.march import MarchRow
from bpu_qconfig import QConfig, check_qconfig_for_march

from ..op import OpRow
from ..ops.functional import QATFloatFunctional
from ..ops.weighted.layer import WeightedQAT

__all__ = ["limit_problems", "output_dtype", "qconfig_problems"]

_CHANGE = "change the layer, or leave it in float between a DeQuantStub and a QuantStub"


def output_dtype(qconfig: QConfig) -> QuantDType:
    """Return the type of an operator's output: qint32 where nothing quantizes it."""
    dtype: QuantDType = qint32 if qconfig.activation is None else qconfig.activation().dtype
    return dtype


def qconfig_problems(op: OpRow, qconfig: QConfig, row: MarchRow) -> Iterator[tuple[str, str]]:
    """Yield what the march cannot do of a qconfig; its weight part counts for layers with weights only."""
    weight = qconfig.weight if issubclass(op.qat, WeightedQAT) else None
    for problem in check_qconfig_for_march(QConfig(activation=qconfig.activation, weight=weight), row.march):
        reason = f"its qconfig has {problem.what} {problem.got}, expected {problem.expected}"
        yield reason, problem.way_out[0].upper() + problem.way_out[1:]


def limit_problems(
    op: OpRow,
    module: nn.Module,
    row: MarchRow,
    dtype: QuantDType,
    inputs: Sequence[QuantDType | None],
    method: str | None,
    given: Mapping[str, Any],
) -> Iterator[tuple[str, str]]:
    """Yield what the march refuses of a module.

    Args:
        op: the row of OPS.
        module: the float module.
        row: the march.
        dtype: type of the output.
        inputs: types of the inputs, None where only running tells.
        method: of FloatFunctional, that is called; None if that is not known.
        given: what else the call gives.
    """
    if not issubclass(op.qat, QATFloatFunctional):
        found = op.qat.limits(module, row, dtype, inputs)
    else:
        found = [] if method is None else op.qat.method_limits(method, given, row, dtype, inputs)
    all_int8 = all(each in (qint8, None) for each in (dtype, *inputs))
    way_out = _CHANGE if all_int8 else f"choose other types by qconfigs (module_name), {_CHANGE}"
    for problem in found:
        yield f"{row.march} ({row.boards}) refuses {problem}", way_out[0].upper() + way_out[1:]

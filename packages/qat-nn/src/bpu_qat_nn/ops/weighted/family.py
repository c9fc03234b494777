"""The fused forms of a layer with weights: with ReLU or ReLU6, with addition; a class each, and their rows of OPS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import numpy as np
from torch import nn

from bpu_fx_fusion import FUSED_CLASSES, FusedModule, fused_class
from bpu_kernels.dtypes import QuantDType, qint8, qint16, qint32
from bpu_kernels.kernel import TensorSpec
from bpu_kernels.march import MarchRow
from bpu_kernels.multiplier import ResidualScale
from bpu_kernels.ops.conv import addend_problems

from ...op import OpRow
from .layer import WeightedQAT, WeightedQuantized
from .operator import WeightedOperator
from .residual import is_added_behind

__all__ = ["FORMS", "forms_of", "fused_problems", "layer_output", "weighted_rows"]

FORMS: tuple[tuple[bool, type[nn.Module] | None], ...] = (
    (False, nn.ReLU),
    (False, nn.ReLU6),
    (True, None),
    (True, nn.ReLU),
    (True, nn.ReLU6),
)
"""(addition?, activation): what a layer may have fused to it."""

_ANY_RESIDUAL: Final = ResidualScale(sumin_scale=np.zeros(1, np.int32), sumin_left_shift=np.zeros(1, np.int32))
"""Stands for scales that are chosen later, always within range."""

_Layer = TypeVar("_Layer", bound=WeightedOperator)


def forms_of(
    base: type[_Layer], layer: type[nn.Module], converted: Sequence[type[WeightedQuantized]] = ()
) -> tuple[type[_Layer], ...]:
    """Make the classes of a layer's fused forms, in the order of FORMS, named as the float ones.

    They are to be assigned to variables of those names in the module of ``base``, where pickles look for them.

    Args:
        base: QAT or quantized class of the layer alone.
        layer: type of the float layer.
        converted: for QAT classes, the quantized ones in the same order.
    """
    prefix = "QAT" if issubclass(base, WeightedQAT) else "Quantized"
    made = []
    for index, (adds, relu) in enumerate(FORMS):
        name = fused_class(layer, add=adds, relu=relu).__name__
        stage = "under quantization-aware training" if prefix == "QAT" else "of integers"
        attributes = {
            "__doc__": f"{name} {stage}.",
            "__module__": base.__module__,
            "adds": adds,
            "relu": None if relu is None else relu.__name__.lower(),
            **({"quantized": converted[index]} if converted else {}),
            **({"add": _add} if adds else {}),
        }
        made.append(type(f"{prefix}{name}", (base,), attributes))
    return tuple(made)


def _add(module: nn.Module, x: Any, residual: Any) -> Any:
    """Return the module's result: in eager models it stands where the FloatFunctional of the addition was."""
    return module(x, residual)


def weighted_rows(
    layer: type[nn.Module],
    qat: type[WeightedQAT],
    forms: Sequence[type[WeightedQAT]],
    kernels: tuple[str, ...],
    *,
    also: tuple[type[nn.Module], ...] = (),
) -> tuple[OpRow, ...]:
    """Return the rows of a layer (``also``: of its variants) and of its fused forms."""
    alone = OpRow(name=layer.__name__, floats=(layer, *also, fused_class(layer, bn=True)), qat=qat, kernels=kernels)
    return (alone, *(_row(layer, form, *FORMS[index], kernels) for index, form in enumerate(forms)))


def _row(
    layer: type[nn.Module], qat: type[WeightedQAT], adds: bool, relu: type[nn.Module] | None, kernels: tuple[str, ...]
) -> OpRow:
    floats: tuple[type[FusedModule], ...] = tuple(FUSED_CLASSES[layer, bn, adds, relu] for bn in (False, True))
    used = (*kernels, *(("resize_bilinear",) if adds else ()), *(("lut8", "lut16") if relu is nn.ReLU6 else ()))
    note = "The second input is added at the accumulator's precision." if adds else ""
    return OpRow(name=floats[0].__name__, floats=floats, qat=qat, kernels=used, note=note)


def layer_output(
    cls: type[WeightedOperator], row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None]
) -> tuple[QuantDType, bool]:
    """Return type and ReLU of the layer's own operator: int16 and without where the residual is added behind it."""
    if _adds_behind(cls, row, dtype, inputs):
        return qint16, False
    return dtype, cls.relu is not None


def _adds_behind(
    cls: type[WeightedOperator], row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None]
) -> bool:
    return cls.adds and cls.gives_int16 and qint16 in row.activations and is_added_behind(inputs, dtype)


def fused_problems(
    cls: type[WeightedOperator], row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None]
) -> list[str]:
    """Return what a march refuses of what is fused to a layer: the residual, and ReLU on 32 bits."""
    found = []
    if cls.relu == "relu6" and dtype is qint32:
        found.append(f"ReLU6 fused to a {dtype} output; apply it outside the model, or quantize the output")
    if cls.adds and not _adds_behind(cls, row, dtype, inputs):
        specs = [TensorSpec((), each or qint8) for each in (*inputs, None, None)[:2]]
        found += addend_problems(row, None, _ANY_RESIDUAL, dtype, specs)
    return found

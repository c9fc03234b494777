"""Pooling in three dimensions, as two poolings in two: height and width, then the frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

from bpu_fx_fusion import FloatFunctional
from bpu_kernels.dtypes import QuantDType, qint8
from bpu_kernels.march import MarchRow

from ...op import OpRow, type_problems
from ...qtensor import QTensor
from ..composites.composite import CompositeOperator, Part, QATComposite, QuantizedComposite
from ..functional import QATFloatFunctional
from .pool import QATAvgPool2d, QATMaxPool2d

__all__ = ["ROWS"]

Triple = tuple[Any, Any, Any]


def _triple(value: Any) -> Triple:
    return (value, value, value) if isinstance(value, int) else tuple(value)


class Pool3dOperator(CompositeOperator):
    """A pooling that is separable, with the parts ``space`` and ``time``."""

    axes: ClassVar[int | None] = 5

    def combine(self, *inputs: Any, **options: Any) -> QTensor:
        """Pool every frame, then over frames."""
        part: Any = self
        x = inputs[0]
        n, c, frames, height, width = x.shape
        y = part.space(x.reshape([n, c * frames, height, width]))
        height, width = y.shape[2:]
        z = part.time(y.reshape([n, c, frames, height * width]))
        result: QTensor = z.reshape([n, c, z.shape[2], height, width])
        return result


class QuantizedPool3d(Pool3dOperator, QuantizedComposite):
    """Pooling of integers."""


class _QATPool3d(Pool3dOperator, QATComposite):
    """What maximum and average have in common."""

    quantized = QuantizedPool3d
    by_axis: ClassVar[tuple[str, ...]] = ("kernel_size", "stride", "padding")
    """Options of the pooling that have a number per axis."""
    at_once: ClassVar[tuple[str, ...]] = ("ceil_mode",)
    """The others."""
    pool: ClassVar[Callable[..., nn.Module]]
    qat: ClassVar[Any]

    @classmethod
    def layers(cls, module: Any) -> tuple[Any, Any]:
        """Return the two-dimensional poolings for space and for time."""
        along = {name: _triple(getattr(module, name)) for name in cls.by_axis}
        whole = {name: getattr(module, name) for name in cls.at_once}
        space = {name: value[1:] for name, value in along.items()}
        time = {name: (value[0], 0 if name == "padding" else 1) for name, value in along.items()}
        return cls.pool(**space, **whole), cls.pool(**time, **whole)

    def parts(self, source: nn.Module) -> Mapping[str, Part]:
        """One for space, one for time."""
        space, time = self.layers(source)
        return {"space": (type(self).qat, space, None), "time": (type(self).qat, time, None)}

    @classmethod
    def limits(
        cls, module: Any, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """Those of the two poolings; marches that can regroup axes."""
        found = [] if row.moves_freely else ["regrouping the axes"]
        if getattr(module, "divisor_override", None) is not None:
            found.append("divisor_override in three dimensions")
        for layer in cls.layers(module):
            found += cls.qat.limits(layer, row, dtype, inputs)
        return list(dict.fromkeys(found))


class QATMaxPool3d(_QATPool3d):
    """Maximum pooling under quantization-aware training."""

    own_scale: ClassVar[bool] = False
    by_axis = (*_QATPool3d.by_axis, "dilation")
    at_once = (*_QATPool3d.at_once, "return_indices")
    pool = nn.MaxPool2d
    qat = QATMaxPool2d


class QATAvgPool3d(_QATPool3d):
    """Average pooling under quantization-aware training."""

    at_once = (*_QATPool3d.at_once, "count_include_pad")
    pool = nn.AvgPool2d
    qat = QATAvgPool2d


class GlobalPool3dOperator(CompositeOperator):
    """The mean of frames, height and width."""

    axes: ClassVar[int | None] = 5

    def combine(self, *inputs: Any, **options: Any) -> QTensor:
        """Average."""
        part: Any = self
        x = inputs[0]
        result: QTensor = part.mean.mean(x, (2, 3, 4), keepdim=True)
        return result


class QuantizedAdaptiveAvgPool3d(GlobalPool3dOperator, QuantizedComposite):
    """Global average of integers."""


class QATAdaptiveAvgPool3d(GlobalPool3dOperator, QATComposite):
    """Global average under quantization-aware training."""

    quantized = QuantizedAdaptiveAvgPool3d

    def parts(self, source: nn.Module) -> Mapping[str, Part]:
        """A mean."""
        return {"mean": (QATFloatFunctional, FloatFunctional(), None)}

    @classmethod
    def limits(
        cls, module: Any, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """One element for the whole map, on marches that sum over axes."""
        found = type_problems([dtype, *inputs], [qint8])
        if set(_triple(module.output_size)) != {1}:
            found.append(f"output_size {module.output_size} (allowed: 1)")
        return found if "sum" not in row.refused_kernels else [*found, "sum over three axes"]


ROWS = (
    OpRow(name="MaxPool3d", floats=(nn.MaxPool3d,), qat=QATMaxPool3d, kernels=("max_pool2d", "reshape")),
    OpRow(name="AvgPool3d", floats=(nn.AvgPool3d,), qat=QATAvgPool3d, kernels=("avg_pool2d", "reshape")),
    OpRow(name="AdaptiveAvgPool3d", floats=(nn.AdaptiveAvgPool3d,), qat=QATAdaptiveAvgPool3d, kernels=("sum",)),
)

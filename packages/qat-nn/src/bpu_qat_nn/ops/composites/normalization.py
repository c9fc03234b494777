"""Normalization by a tensor's own statistics, in known operators of 16 bits: layer, group, instance and RMS norms.

``(x - mean) * rsqrt(mean((x - mean)**2) + eps)``, then weight and bias as a depthwise 1 x 1 convolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, ClassVar

import torch
from torch import nn

from bpu_fx_fusion import FloatFunctional, LayerNorm, Rsqrt
from bpu_kernels.dtypes import QuantDType, qint16
from bpu_kernels.march import MarchRow

from ...errors import InputError
from ...op import OpRow
from ...qtensor import QTensor
from ..functional import QATFloatFunctional
from ..reduction import NOT_SUMMABLE, is_summable
from ..table import QATTable
from ..weighted.conv import QATConv2d
from .composite import CompositeOperator, Part, QATComposite, QuantizedComposite
from .copied import copied

__all__ = ["ROWS"]


class NormalizationOperator(CompositeOperator):
    """Normalize groups of elements; subclasses say which."""

    config: ClassVar[tuple[str, ...]] = ("centred", "scales")
    fixed: ClassVar[tuple[str, ...]] = config
    centred: bool
    """Whether the mean is subtracted."""
    scales: bool
    """Whether there is a weight or a bias."""
    affine: Any
    """The convolution that applies them."""

    def grouped(self, x: Any) -> tuple[Any, int | tuple[int, ...]]:
        """Return x in a shape with the axes that are normalized over, and these axes."""
        raise NotImplementedError

    def scaled(self, y: Any) -> QTensor:
        """Apply weight and bias, the convolution ``affine``."""
        raise NotImplementedError

    def combine(self, *inputs: Any, **options: Any) -> QTensor:
        """Normalize, then scale."""
        part: Any = self
        x = inputs[0]
        y, dim = self.grouped(x)
        if self.centred:
            y = part.centre.sub(y, part.mean.mean(y, dim, keepdim=True))
        deviation = part.inverse(part.variance.mean(part.square.mul(y, y), dim, keepdim=True))
        normalized: Any = part.product.mul(y, deviation).reshape(x.shape)
        result: QTensor = self.scaled(normalized) if self.scales else normalized
        return result


class LayerNormOperator(NormalizationOperator):
    """Normalize over the last axes."""

    config: ClassVar[tuple[str, ...]] = (*NormalizationOperator.config, "normalized_shape")
    normalized_shape: tuple[int, ...]

    def grouped(self, x: Any) -> tuple[Any, int | tuple[int, ...]]:
        """The last axes."""
        count = len(self.normalized_shape)
        if tuple(int(n) for n in x.shape[-count:]) != tuple(self.normalized_shape):
            raise InputError(f"{self.label} expected last axes {self.normalized_shape}, got the shape {tuple(x.shape)}")
        return x, tuple(range(-count, 0))

    def scaled(self, y: Any) -> QTensor:
        """Features become the channels of a map with one pixel per position."""
        lead = y.shape[: -len(self.normalized_shape)]
        as_map = y.reshape([lead[0], prod(lead[1:]), 1, prod(self.normalized_shape)]).permute(0, 3, 1, 2)
        result: QTensor = self.affine(as_map).permute(0, 2, 3, 1).reshape(y.shape)
        return result

    def extra_repr(self) -> str:
        """Shape."""
        return f"{tuple(self.normalized_shape)}"


class GroupNormOperator(NormalizationOperator):
    """Normalize groups of channels; each channel by itself is an instance norm."""

    config: ClassVar[tuple[str, ...]] = (*NormalizationOperator.config, "num_groups")
    num_groups: int | None
    """None: as many as there are channels."""

    def grouped(self, x: Any) -> tuple[Any, int | tuple[int, ...]]:
        """A group's channels and all of space."""
        batch, channels, *space = x.shape
        groups = self.num_groups or channels
        return x.reshape([batch, groups, channels * prod(space) // groups]), -1

    def scaled(self, y: Any) -> QTensor:
        """Channels are channels."""
        if len(y.shape) == 4:
            mapped: QTensor = self.affine(y)
            return mapped
        as_map = y.reshape([*y.shape[:2], prod(y.shape[2:]), 1])
        result: QTensor = self.affine(as_map).reshape(y.shape)
        return result

    def extra_repr(self) -> str:
        """Number of groups."""
        return f"num_groups={self.num_groups}"


class QuantizedLayerNorm(LayerNormOperator, QuantizedComposite):
    """Layer or RMS normalization of integers."""


class QuantizedGroupNorm(GroupNormOperator, QuantizedComposite):
    """Group or instance normalization of integers."""


class _QATNormalization(NormalizationOperator, QATComposite):
    """Parts of all normalizations."""

    def parts(self, source: nn.Module) -> Mapping[str, Part]:
        """Everything but the result has 16 bits."""
        eps = getattr(source, "eps", None)
        weight, bias = getattr(source, "weight", None), getattr(source, "bias", None)
        between = ("mean", "centre", "square", "variance") if self.centred else ("square", "variance")
        made: dict[str, Part] = {
            **{name: (QATFloatFunctional, FloatFunctional(), qint16) for name in between},
            "inverse": (QATTable, Rsqrt(torch.finfo(torch.float32).eps if eps is None else eps), qint16),
            "product": (QATFloatFunctional, FloatFunctional(), qint16 if self.scales else None),
        }
        if self.scales:
            made["affine"] = (QATConv2d, _affine(weight, bias), None)
        return made


def _affine(weight: nn.Parameter | None, bias: nn.Parameter | None) -> nn.Conv2d:
    """Return the depthwise convolution that multiplies by a weight and adds a bias; it shares neither."""
    known = weight if weight is not None else bias
    assert known is not None
    made = nn.Conv2d(known.numel(), known.numel(), 1, groups=known.numel(), bias=bias is not None, device="meta")
    ones = nn.Parameter(torch.ones_like(known), requires_grad=False)
    made.weight = copied(ones if weight is None else weight, (-1, 1, 1, 1))
    made.bias = None if bias is None else copied(bias, (-1,))
    return made


class QATLayerNorm(LayerNormOperator, _QATNormalization):
    """Layer or RMS normalization under quantization-aware training."""

    quantized = QuantizedLayerNorm

    @classmethod
    def limits(
        cls, module: Any, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """Means of a length that can be summed."""
        found, length = super().limits(module, row, dtype, inputs), prod(module.normalized_shape)
        return found if found or is_summable(length, row) else [f"a mean of {length} values: {NOT_SUMMABLE}"]

    def configure(self, source: Any) -> None:
        """Weight and bias lie along the axes that are normalized."""
        self.normalized_shape = tuple(source.normalized_shape)
        self.centred = not isinstance(source, nn.RMSNorm)
        self.scales = any(getattr(source, name, None) is not None for name in ("weight", "bias"))


class QATGroupNorm(GroupNormOperator, _QATNormalization):
    """Group or instance normalization under quantization-aware training."""

    quantized = QuantizedGroupNorm

    def configure(self, source: Any) -> None:
        """Weight and bias lie along the channels."""
        self.num_groups, self.centred = getattr(source, "num_groups", None), True
        self.scales = any(getattr(source, name, None) is not None for name in ("weight", "bias"))

    @classmethod
    def limits(
        cls, module: nn.Module, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """No running statistics: what is normalized by them is a BatchNorm."""
        tracks = getattr(module, "running_mean", None) is not None
        found = ["track_running_stats=True, since it normalizes by the statistics of its input"] if tracks else []
        return [*found, *super().limits(module, row, dtype, inputs)]


_KERNELS = ("conv2d", "add", "mul", "lut16", "rescale")
_NOTE = "Computed in known operators of 16 bits, exactly as these compute; the vendor's own rule is not known."

ROWS = (
    OpRow(
        name="LayerNorm", floats=(nn.LayerNorm, LayerNorm, nn.RMSNorm), qat=QATLayerNorm, kernels=_KERNELS, note=_NOTE
    ),
    OpRow(
        name="GroupNorm",
        floats=(nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
        qat=QATGroupNorm,
        kernels=_KERNELS,
        note=_NOTE,
    ),
)

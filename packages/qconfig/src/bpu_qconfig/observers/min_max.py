"""Observers that use the whole range of the data: moving averages of it, and its extremes over all batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidQConfigError
from .base import Observer

__all__ = [
    "MinMaxObserver",
    "MovingAverageMinMaxObserver",
    "MovingAveragePerChannelMinMaxObserver",
    "MovingAveragePerTensorMinMaxObserver",
    "PerChannelMinMaxObserver",
]


class MinMaxObserver(Observer):
    """Moving average of smallest and largest value, per tensor or per channel as ``qscheme`` says."""


class MovingAverageMinMaxObserver(Observer):
    """Moving average of smallest and largest value of a tensor: the usual choice for activations.

    ``ch_axis`` is accepted because qconfigs in the field give it to this class; it has no meaning per tensor.
    """

    def __init__(
        self,
        averaging_constant: float = 0.01,
        dtype: object = "qint8",
        qscheme: torch.qscheme = torch.per_tensor_symmetric,
        quant_min: int | None = None,
        quant_max: int | None = None,
        is_sync_quantize: bool = False,
        factory_kwargs: dict[str, Any] | None = None,
        ch_axis: int = -1,
    ) -> None:
        _require(type(self), qscheme, torch.per_tensor_symmetric, "MovingAveragePerChannelMinMaxObserver")
        super().__init__(
            averaging_constant, ch_axis, dtype, qscheme, quant_min, quant_max, is_sync_quantize, factory_kwargs
        )


MovingAveragePerTensorMinMaxObserver = MovingAverageMinMaxObserver


class MovingAveragePerChannelMinMaxObserver(Observer):
    """Moving average of smallest and largest value of each channel: the usual choice for weights."""

    def __init__(
        self,
        averaging_constant: float = 0.01,
        ch_axis: int = 0,
        dtype: object = "qint8",
        qscheme: torch.qscheme = torch.per_channel_symmetric,
        quant_min: int | None = None,
        quant_max: int | None = None,
        is_sync_quantize: bool = False,
        factory_kwargs: dict[str, Any] | None = None,
    ) -> None:
        _require(type(self), qscheme, torch.per_channel_symmetric, "MovingAverageMinMaxObserver")
        super().__init__(
            averaging_constant, ch_axis, dtype, qscheme, quant_min, quant_max, is_sync_quantize, factory_kwargs
        )


class PerChannelMinMaxObserver(Observer):
    """Smallest and largest value of each channel over all batches, without averaging: the range only grows."""

    def __init__(
        self,
        ch_axis: int = 0,
        dtype: object = "qint8",
        qscheme: torch.qscheme = torch.per_channel_symmetric,
        quant_min: int | None = None,
        quant_max: int | None = None,
        is_sync_quantize: bool = False,
        factory_kwargs: dict[str, Any] | None = None,
    ) -> None:
        _require(type(self), qscheme, torch.per_channel_symmetric, "MinMaxObserver")
        super().__init__(1.0, ch_axis, dtype, qscheme, quant_min, quant_max, is_sync_quantize, factory_kwargs)

    def merge(self, old: Tensor, new: Tensor) -> Tensor:
        """Return the ends that lie further out."""
        return torch.maximum(old, new)


def _require(cls: type, qscheme: torch.qscheme, expected: torch.qscheme, other: str) -> None:
    if qscheme is not expected:
        raise InvalidQConfigError(f"{cls.__name__} expected qscheme {expected}, got {qscheme}; use {other} for that")

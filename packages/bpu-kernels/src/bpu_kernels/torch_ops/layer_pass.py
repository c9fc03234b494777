"""Passes of the native engine over a layer's accumulators, which are integers held in float32.

The plain operators of torch are their reference. Nothing of the size of an activation is read or written twice.
"""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int32, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor

from ..engine.backend import native_library
from ..engine.library import load_library
from ..errors import ArgumentError

__all__ = ["ACTIVATIONS", "Layer", "LayerPass", "has_passes", "run_pass"]

ACTIVATIONS: dict[str | None, int] = {None: 0, "relu": 1, "relu6": 2}
"""Activations by name -> number, as native/src/engine.h has them."""


class Layer(ctypes.Structure):
    """BpuLayer of native/src/engine.h."""

    _fields_ = (
        *((name, c_int64) for name in ("outer", "channels", "inner")),
        *((name, c_void_p) for name in ("unit", "bias", "before", "accu", "scale", "rounding", "right")),
        *((name, c_void_p) for name in ("residual_scale", "residual_left", "residual_right")),
        *((name, c_void_p) for name in ("residual", "residual_value")),
        *((name, c_int32) for name in ("activation", "low", "high")),
        *((name, c_float) for name in ("value_scale", "pass_low", "pass_high")),
    )


def has_passes(*tensors: Tensor) -> bool:
    """Whether the engine is there, and all tensors are float32 on the CPU, with elements."""
    fit = all(each.dtype == torch.float32 and each.is_cpu and each.numel() for each in tensors)
    return fit and native_library() is not None


def run_pass(name: str, *arguments: Any) -> int:
    """Run a function of the library, which is there, on the threads that torch uses; return its status, 0 or above 1.

    Raises:
        MemoryError: status 1.
    """
    status: int = getattr(load_library(), name)(*arguments, torch.get_num_threads())
    if status == 1:
        raise MemoryError("the native engine ran out of memory")
    return status


def _layout(acc: Tensor, channel_axis: int) -> tuple[int, int, int, torch.memory_format] | None:
    """Return outer, channels, inner and memory format; None for tensors that are dense in neither."""
    channels = acc.shape[channel_axis]
    if acc.is_contiguous():
        inner = acc.shape[channel_axis + 1 :].numel()
        return acc.numel() // (channels * inner), channels, inner, torch.contiguous_format
    if acc.dim() == 4 and channel_axis == 1 and acc.is_contiguous(memory_format=torch.channels_last):
        return acc.numel() // channels, channels, 1, torch.channels_last
    return None


class LayerPass:
    """The accumulators of one call of a layer, and what all passes know of them.

    Args:
        acc: float32, integer-valued.
        channel_axis: which axis of it the output channels are.
        residual: its steps (int8) and real values (float32), of the accumulators' shape; None without.
        activation: of the real outputs, a key of ``ACTIVATIONS``.
    """

    def __init__(
        self,
        acc: Tensor,
        channel_axis: int,
        *,
        residual: tuple[Tensor, Tensor] | None = None,
        activation: str | None = None,
    ) -> None:
        layout = _layout(acc, channel_axis)
        if layout is None:
            acc = acc.contiguous()
            layout = _layout(acc, channel_axis)
            assert layout is not None
        outer, channels, inner, self.format = layout
        self.acc = acc
        self.layer = Layer(outer=outer, channels=channels, inner=inner, activation=ACTIVATIONS[activation])
        self._residual: list[Tensor] = []
        self.adds = residual is not None
        if residual is not None:
            steps, values = residual
            self.layer.residual = self._pointer(steps, torch.int8)
            self.layer.residual_value = self._pointer(values, torch.float32)

    def _pointer(self, residual: Tensor, dtype: torch.dtype) -> int:
        """Return where the library reads a residual, which it trusts to have the accumulators' shape and layout."""
        if residual.shape != self.acc.shape or residual.dtype != dtype:
            raise ArgumentError(
                f"expected a residual {dtype} {tuple(self.acc.shape)}, got {residual.dtype} {tuple(residual.shape)}"
            )
        self._residual.append(residual.contiguous(memory_format=self.format))
        return self._residual[-1].data_ptr()

    def extremes(self, unit: Tensor, bias: Tensor) -> Tensor:
        """Return the smallest and the largest real output, float32 [2].

        Args:
            unit: real value of an accumulator's unit, float32, one per channel.
            bias: real, float32, one per channel.
        """
        if [unit.numel(), bias.numel()] != [self.layer.channels] * 2:
            raise ArgumentError(f"expected unit and bias for {self.layer.channels} channels")
        given = [each.to(torch.float32).contiguous() for each in (unit, bias)]
        self.layer.unit, self.layer.bias = (each.data_ptr() for each in given)
        found = torch.empty(2)
        run_pass("bpu_layer_range", ctypes.addressof(self.layer), self.acc.data_ptr(), found.data_ptr())
        return found

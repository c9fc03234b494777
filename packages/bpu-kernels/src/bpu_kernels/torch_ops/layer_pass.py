"""Passes of the native engine over float32 tensors under training; the plain operators of torch are their reference.

A layer under training computes its accumulators as a float32 convolution of integers. From these, one pass finds the
range of the real outputs for the observer, and one gives the board's integers, their real values, and a bit per element
for the gradient. Nothing else of the size of an activation is read or written.
"""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..engine.backend import native_library
from ..errors import ArgumentError
from ..fixed_point import Multiplier, half
from ..march import MarchRow
from ..multiplier import Bias, ResidualScale

__all__ = ["ACTIVATIONS", "Bits", "LayerPass", "Quantized", "has_passes", "quantize_rows"]

ACTIVATIONS: dict[str | None, int] = {None: 0, "relu": 1, "relu6": 2}
"""Activations by name -> number, as native/src/engine.h has them."""


class _Layer(ctypes.Structure):
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
    fit = all(each.device.type == "cpu" and each.dtype == torch.float32 and each.numel() for each in tensors)
    return fit and native_library() is not None


def _pass(name: str, *arguments: Any) -> None:
    """Run a function of the library on the threads that torch uses."""
    if getattr(native_library(), name)(*arguments, torch.get_num_threads()):
        raise MemoryError("the native engine ran out of memory")


@dataclass(frozen=True)
class Bits:
    """A bit per element, in the order of memory; rows begin bytes."""

    packed: Tensor
    """uint8."""
    rows: int
    length: int
    format: torch.memory_format

    def masked(self, gradient: Tensor, *, in_place: bool = False) -> Tensor:
        """Return the gradient where its bit is 1, and 0 elsewhere."""
        given = gradient.contiguous(memory_format=self.format)
        out = given if in_place else torch.empty_like(given)
        _pass("bpu_masked_gradient", given.data_ptr(), self.packed.data_ptr(), self.rows, self.length, out.data_ptr())
        return out


def _empty_bits(rows: int, length: int, memory_format: torch.memory_format) -> Bits:
    return Bits(torch.empty(rows * ((length + 7) // 8), dtype=torch.uint8), rows, length, memory_format)


@dataclass(frozen=True)
class Quantized:
    """Rows of weights, fake-quantized."""

    steps: Tensor
    """Integers, float32."""
    values: Tensor
    """Steps times scale."""
    sums: np.ndarray
    """Sum of absolute steps of every row, float64."""
    passes: Bits | None
    """Where the gradient passes; None: everywhere."""


def quantize_rows(x: Tensor, scale: Tensor, low: int, high: int) -> Quantized:
    """Return ``clamp(round(x / scale), low, high)`` of every row; x is contiguous, scale has 1 or as many entries."""
    rows, length = x.shape[0], x[0].numel()
    steps, values = torch.empty_like(x), torch.empty_like(x)
    sums, clipped = np.empty(rows, np.float64), np.empty(rows, np.int64)
    bits, scales = _empty_bits(rows, length, torch.contiguous_format), scale.expand(rows).contiguous()
    pointers = [steps.data_ptr(), values.data_ptr(), sums.ctypes.data, bits.packed.data_ptr(), clipped.ctypes.data]
    _pass("bpu_quantize_rows", x.data_ptr(), rows, length, scales.data_ptr(), low, high, *pointers)
    if np.isnan(sums).any():
        raise ArgumentError(f"row {int(np.isnan(sums).argmax())} of the weights holds NaN, which has no integer")
    return Quantized(steps, values, sums, bits if clipped.any() else None)


def _layout(acc: Tensor, channel_axis: int) -> tuple[int, int, int, torch.memory_format] | None:
    """Return outer, channels, inner and memory format; None for tensors that are dense in neither."""
    channels = acc.shape[channel_axis]
    if acc.is_contiguous():
        inner = acc[(0,) * (channel_axis + 1)].numel()
        return acc.numel() // (channels * inner), channels, inner, torch.contiguous_format
    if acc.dim() == 4 and channel_axis == 1 and acc.is_contiguous(memory_format=torch.channels_last):
        return acc.numel() // channels, channels, 1, torch.channels_last
    return None


class LayerPass:
    """The accumulators of one call of a layer, and what both passes know of them.

    Args:
        acc: float32, integer-valued.
        channel_axis: which axis of it the output channels are.
        residual: its steps (int8) and real values (float32), of the accumulators' shape; None without. The real values
            count where the real outputs do.
        unit: real value of an accumulator's unit, float32, one per channel; None where no real outputs are needed.
        bias: real, float32, one per channel; None with ``unit``.
        activation: of the real outputs, a key of ``ACTIVATIONS``.
    """

    def __init__(
        self,
        acc: Tensor,
        channel_axis: int,
        *,
        residual: tuple[Tensor, Tensor | None] | None = None,
        unit: np.ndarray | None = None,
        bias: np.ndarray | None = None,
        activation: str | None = None,
    ) -> None:
        layout = _layout(acc, channel_axis)
        if layout is None:
            acc = acc.contiguous()
            layout = _layout(acc, channel_axis)
            assert layout is not None
        outer, channels, inner, self.format = layout
        self.acc = acc
        self._layer = _Layer(outer=outer, channels=channels, inner=inner, activation=ACTIVATIONS[activation])
        self._real = [None if each is None else np.ascontiguousarray(each, np.float32) for each in (unit, bias)]
        self._layer.unit, self._layer.bias = (None if each is None else each.ctypes.data for each in self._real)
        given = (None, None) if residual is None else residual
        for each, dtype in zip(given, (torch.int8, torch.float32), strict=True):
            if each is not None and (each.shape != acc.shape or each.dtype != dtype):  # the library trusts both
                raise ArgumentError(
                    f"expected a residual {dtype} {tuple(acc.shape)}, got {each.dtype} {tuple(each.shape)}"
                )
        self._residual = [None if each is None else each.contiguous(memory_format=self.format) for each in given]
        self._layer.residual, self._layer.residual_value = (
            None if each is None else each.data_ptr() for each in self._residual
        )

    def _expect_reals(self) -> None:
        """Raise unless everything is there that real outputs are computed from; the library reads it unasked."""
        steps, values = self._residual
        sizes = [0 if each is None else each.size for each in self._real]
        if sizes != [self._layer.channels] * 2 or (steps is None) != (values is None):
            raise ArgumentError(
                f"expected unit, bias (and residual) in real values for {self._layer.channels} channels"
            )

    def extremes(self) -> Tensor:
        """Return the smallest and the largest real output, float32 [2]."""
        found = torch.empty(2)
        self._expect_reals()
        _pass("bpu_layer_range", ctypes.addressof(self._layer), self.acc.data_ptr(), found.data_ptr())
        return found

    def output(
        self,
        row: MarchRow,
        multiplier: Multiplier,
        bias: Bias | None,
        residual: ResidualScale | None,
        *,
        limits: tuple[int, int],
        scale: float | None = None,
        passing: tuple[float, float] | None = None,
    ) -> tuple[Tensor, Tensor | None, Bits | None]:
        """Return the output's integers (int8), their real values, and where the gradient passes.

        Equations (1), (3), (5) and (6), as ``finish`` has them; the sums must fit 32 bits.

        Args:
            row: the march.
            multiplier: numpy arrays.
            bias: numpy arrays.
            residual: numpy arrays.
            limits: smallest and largest integer of the output, with its activation.
            scale: of the output; None: no real values are needed.
            passing: real values between which the gradient passes; None: it is not needed.
        """
        layer, channels = self._layer, self._layer.channels
        if (residual is None) != (self._residual[0] is None):
            raise ArgumentError("expected a residual and its scales, or neither")
        if passing is not None:
            self._expect_reals()
        right = np.asarray(multiplier.output_right_shift)
        rounding = half(right, np) if row.rounds else np.zeros_like(right)
        arrays: dict[str, Any] = {
            "before": 0 if bias is None else bias.shifted(),
            "accu": multiplier.accu_right_shift,
            "scale": multiplier.output_scale,
            "rounding": rounding,
            "right": right,
        }
        if residual is not None:
            shift = np.asarray(residual.sumin_left_shift)
            arrays["residual_scale"] = residual.sumin_scale
            arrays["residual_left"], arrays["residual_right"] = np.clip(shift, 0, 31), np.clip(-shift, 0, 31)
        stored = {n: np.ascontiguousarray(np.broadcast_to(v, channels), np.int32) for n, v in arrays.items()}
        for name, array in stored.items():
            setattr(layer, name, array.ctypes.data)
        layer.low, layer.high = limits
        layer.value_scale = scale or 0.0
        layer.pass_low, layer.pass_high = passing or (0.0, 0.0)
        steps = torch.empty_like(self.acc, dtype=torch.int8)
        values = None if scale is None else torch.empty_like(self.acc)
        bits = None
        if passing is not None:
            rows = layer.outer if layer.inner == 1 else layer.outer * channels
            bits = _empty_bits(rows, channels if layer.inner == 1 else layer.inner, self.format)
        _pass(
            "bpu_layer_output",
            ctypes.addressof(layer),
            self.acc.data_ptr(),
            steps.data_ptr(),
            None if values is None else values.data_ptr(),
            None if bits is None else bits.packed.data_ptr(),
        )
        return steps, values, bits

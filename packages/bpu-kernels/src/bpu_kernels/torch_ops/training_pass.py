"""What a layer under training does besides its convolutions, in calls of the native engine.

``train_rows`` observes weights and quantizes them. ``LayerTraining`` observes outputs, lets their scale follow, chooses
the board's parameters and gives the outputs; ``OutputMask`` and ``RowMask`` let the gradient through. The observers of
bpu_qconfig, ``multiplier.py`` and the plain operators of torch are the reference.
"""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int32, c_int64, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor

from ..engine.library import load_library
from ..errors import ArgumentError
from ..march import MARCHES, MarchRow
from .layer_pass import Layer, LayerPass, run_pass
from .ranges import Observed, Range, dense_format, expect

__all__ = ["LayerTraining", "OutputMask", "Outputs", "RowMask", "Rows", "row_values", "train_rows"]


class _March(ctypes.Structure):
    """BpuMarch of native/src/engine.h."""

    _fields_ = tuple(
        (name, c_int32)
        for name in (
            *("rounds", "bias_bits", "most_bias_shift", "most_accu_shift", "most_right_shift"),
            *("least_residual_shift", "most_residual_shift"),
        )
    )


def _march(row: MarchRow) -> _March:
    shift = row.sumin_left_shift.allowed
    most = (max(each.allowed) for each in (row.bias_left_shift, row.accu_right_shift, row.output_right_shift))
    return _March(row.rounds, row.bias.bits, *most, min(shift), max(shift))


_MARCHES = {march: _march(row) for march, row in MARCHES.items()}


class _Training(ctypes.Structure):
    """BpuTraining."""

    _fields_ = (
        ("layer", Layer),
        ("march", _March),
        ("output", Observed),
        *((name, c_int32) for name in ("observes", "quant_min", "quant_max")),
        *((name, c_float) for name in ("x_scale", "residual_scale")),
        *((name, c_void_p) for name in ("weight_scale", "bias", "sums")),
    )


class _Rows(ctypes.Structure):
    """BpuRows."""

    _fields_ = (
        ("x", c_void_p),
        *((name, c_int64) for name in ("rows", "length")),
        ("observed", Observed),
        *((name, c_int32) for name in ("observes", "quant_min", "quant_max")),
        *((name, c_void_p) for name in ("steps", "stored", "sums", "mask")),
        ("clipped", c_int64),
    )


def _rows_of(x: Tensor) -> tuple[int, int]:
    """Return number and length of the rows of weights."""
    return x.shape[0], x.numel() // x.shape[0]


@dataclass(frozen=True, kw_only=True)
class RowMask:
    """Where the gradient of weights passes: a bit per element, every row beginning a byte."""

    packed: Tensor
    """uint8."""
    format: torch.memory_format
    """In whose order the elements are."""

    def masked_(self, gradient: Tensor) -> Tensor:
        """Return the gradient where its bit is 1 and 0 elsewhere, written in place where its layout allows."""
        given = gradient.contiguous(memory_format=self.format)
        run_pass("bpu_mask_rows", given.data_ptr(), self.packed.data_ptr(), *_rows_of(given))
        return given


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Weights, fake-quantized row by row."""

    steps: Tensor
    """Integers, float32."""
    stored: Tensor
    """The same integers, int8."""
    sums: Tensor
    """Sum of the absolute integers of every row, float64."""
    passes: RowMask | None
    """None: the gradient passes everywhere."""


def train_rows(x: Tensor, by: Range) -> Rows | None:
    """Observe the rows of float32 weights and return ``clamp(round(x / scale), quant_min, quant_max)``.

    None, and nothing observed, if a value is not finite.

    Args:
        x: at least two-dimensional, with elements.
        by: one entry per row, and limits of int8.
    """
    memory_format = dense_format(x)
    x, memory_format = (x, memory_format) if memory_format else (x.contiguous(), torch.contiguous_format)
    rows, length = _rows_of(x)
    steps, stored = torch.empty_like(x), torch.empty_like(x, dtype=torch.int8)
    sums = torch.empty(rows, dtype=torch.float64)
    packed = torch.empty(rows * ((length + 7) // 8), dtype=torch.uint8)
    given = _Rows(
        x.data_ptr(),
        rows,
        length,
        by.described(rows),
        by.observes,
        by.quant_min,
        by.quant_max,
        *(each.data_ptr() for each in (steps, stored, sums, packed)),
    )
    if run_pass("bpu_train_rows", ctypes.addressof(given)):
        return None
    mask = RowMask(packed=packed, format=memory_format) if given.clipped else None
    return Rows(steps=steps, stored=stored, sums=sums, passes=mask)


def row_values(stored: Tensor, scale: Tensor) -> Tensor:
    """Return the real values of rows of integers.

    Args:
        stored: int8, as ``Rows`` has them.
        scale: float32, one per row.
    """
    values = torch.empty_like(stored, dtype=torch.float32)
    rows, length = _rows_of(stored)
    pointers = (expect(scale, rows, torch.float32), values.data_ptr())
    run_pass("bpu_row_values", stored.data_ptr(), rows, length, *pointers)
    return values


@dataclass(frozen=True, kw_only=True)
class OutputMask:
    """Where the gradient of a layer's outputs passes: a bit per element, in the order of memory."""

    packed: Tensor
    """uint8."""
    layer: Layer
    """Sizes of the outputs."""
    format: torch.memory_format

    def masked(self, gradient: Tensor, *, sums: bool) -> tuple[Tensor, Tensor | None]:
        """Return the gradient where its bit is 1 and 0 elsewhere, and with ``sums`` its sum per channel, float32."""
        given = gradient.contiguous(memory_format=self.format)
        out, summed = torch.empty_like(given), torch.empty(self.layer.channels) if sums else None
        run_pass(
            "bpu_layer_gradient",
            ctypes.addressof(self.layer),
            given.data_ptr(),
            self.packed.data_ptr(),
            out.data_ptr(),
            None if summed is None else summed.data_ptr(),
        )
        return out, summed


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a layer under training gives."""

    values: Tensor
    """Real values, float32, where the accumulators were."""
    steps: Tensor
    """Integers, int8."""
    passes: OutputMask | None
    """Where the gradient passes, if that was wanted."""


class LayerTraining:
    """One call of a layer: scales and sums of what it computes with. Tensors have one entry per output channel.

    Args:
        row: the march.
        x_scale: scale of the input.
        residual_scale: scale of the residual; None without.
        weight_scale: float64.
        bias: real values, float32; None: none.
        sums: of the absolute integers of the weights, float64.
    """

    def __init__(
        self,
        row: MarchRow,
        *,
        x_scale: float,
        residual_scale: float | None,
        weight_scale: Tensor,
        bias: Tensor | None,
        sums: Tensor,
    ) -> None:
        channels = sums.numel()
        self.adds = residual_scale is not None
        self._read = (weight_scale, bias, sums)  # as long as the library may
        self._given = _Training(
            layer=Layer(channels=channels),
            march=_MARCHES[row.march],
            x_scale=x_scale,
            residual_scale=residual_scale or 0.0,
            weight_scale=expect(weight_scale, channels, torch.float64),
            bias=None if bias is None else expect(bias, channels, torch.float32),
            sums=expect(sums, channels, torch.float64),
        )

    def needs_larger_scale(self) -> bool:
        """Whether ``smallest_weight_scale`` is above a scale of the weights."""
        return bool(load_library().bpu_scale_too_small(ctypes.addressof(self._given)))  # type: ignore[union-attr]

    def run(self, layer: LayerPass, out: Range, *, needs_gradient: bool) -> Outputs | None:
        """Observe the real outputs and return what the board gives for the accumulators.

        None, and nothing observed, if an output is not finite.

        Args:
            layer: the accumulators, the residual, and the activation; the real values take the accumulators' place.
            out: one entry.
            needs_gradient: whether the gradient's mask is wanted.
        """
        given = self._given
        if layer.layer.channels != given.layer.channels or layer.adds != self.adds:
            raise ArgumentError(
                f"expected accumulators of {given.layer.channels} channels, "
                f"{'a' if self.adds else 'no'} residual, got {layer.layer.channels}, {'a' if layer.adds else 'no'} one"
            )
        given.layer, given.output = layer.layer, out.described(1)
        given.observes, given.quant_min, given.quant_max = out.observes, out.quant_min, out.quant_max
        steps = torch.empty_like(layer.acc, dtype=torch.int8)
        packed = torch.empty((layer.acc.numel() + 7) // 8, dtype=torch.uint8) if needs_gradient else None
        pointers = (None if each is None else each.data_ptr() for each in (steps, layer.acc, packed))
        if run_pass("bpu_train_layer", ctypes.addressof(given), layer.acc.data_ptr(), *pointers):
            return None
        mask = None if packed is None else OutputMask(packed=packed, layer=layer.layer, format=layer.format)
        return Outputs(values=layer.acc, steps=steps, passes=mask)

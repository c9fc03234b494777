"""The range that an observer keeps of a tensor, moved by the native engine.

The observers of bpu_qconfig are the reference.
"""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor

from ..engine.library import load_library
from ..errors import ArgumentError
from .layer_pass import run_pass

__all__ = ["Observed", "Range", "dense_format", "expect", "follow_ends", "observe_rows", "row_ends"]


class Observed(ctypes.Structure):
    """BpuObserved."""

    _fields_ = (
        *((name, c_void_p) for name in ("scale", "min", "max")),
        *((name, c_float) for name in ("constant", "steps")),
    )


def expect(tensor: Tensor, entries: int, dtype: torch.dtype) -> int:
    """Return where the library reads a tensor, which it trusts to have so many entries."""
    if tensor.numel() != entries or tensor.dtype != dtype or not tensor.is_cpu or not tensor.is_contiguous():
        raise ArgumentError(
            f"expected {entries} numbers of {dtype} on the CPU, got {tensor.dtype} {tuple(tensor.shape)} on "
            f"{tensor.device}"
        )
    return tensor.data_ptr()


def dense_format(x: Tensor) -> torch.memory_format | None:
    """Return a memory format in which every row of x is dense, and behind the one before."""
    if x.is_contiguous():
        return torch.contiguous_format
    return torch.channels_last if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) else None


@dataclass(frozen=True, kw_only=True)
class Range:
    """The moving average of a range, and the scale that follows it; written in place.

    Tensors are float32, contiguous, with one entry, or for weights one per row.
    """

    min_val: Tensor
    max_val: Tensor
    scale: Tensor
    constant: float
    """Of the average, 0 to 1."""
    quant_min: int
    quant_max: int
    observes: bool
    """Whether the range is moved; otherwise only the scale is read."""

    def described(self, entries: int) -> Observed:
        """Return what the library takes; the tensors must outlive its call.

        Raises:
            ArgumentError: a tensor is of another kind.
        """
        ends = (self.min_val, self.max_val) if self.observes else ()
        pointers = [expect(each, entries, torch.float32) for each in (self.scale, *ends)]
        return Observed(*pointers, constant=self.constant, steps=self.quant_max - self.quant_min)


def observe_rows(x: Tensor, by: Range) -> bool:
    """Take the smallest and the largest value of each row into the range, and let the scale follow.

    False, and nothing observed, if a value is not finite.

    Args:
        x: float32 on the CPU, with elements. It is one row if ``by`` has one entry, otherwise a row per first index.
        by: what is to be moved.
    """
    rows = by.scale.numel()
    observed, dense = by.described(rows), _rows(x, rows)
    return not run_pass("bpu_observe_rows", dense.data_ptr(), rows, x.numel() // rows, ctypes.addressof(observed))


def row_ends(x: Tensor, rows: int) -> Tensor | None:
    """Return the smallest value of each row, negated, and the largest; None if a value is not finite.

    Args:
        x: as ``observe_rows`` takes it.
        rows: 1, or the length of the first axis.

    Returns:
        float32, [2] for one row, otherwise [2, rows].
    """
    dense, ends = _rows(x, rows), torch.empty((2, rows) if rows > 1 else 2)
    found = run_pass("bpu_row_ends", dense.data_ptr(), rows, x.numel() // rows, ends.data_ptr())
    return None if found else ends


def follow_ends(ends: Tensor, by: Range) -> None:
    """Take ends, as ``row_ends`` gives them, into the range, and let the scale follow."""
    rows = by.scale.numel()
    observed, given = by.described(rows), ends.contiguous()
    expected = expect(given, 2 * rows, torch.float32)
    load_library().bpu_follow_ends(expected, rows, ctypes.addressof(observed))  # type: ignore[union-attr]


def _rows(x: Tensor, rows: int) -> Tensor:
    if rows > 1 and x.shape[0] != rows:
        raise ArgumentError(f"expected {rows} rows, got a tensor of shape {tuple(x.shape)}")
    return x if dense_format(x) else x.contiguous()

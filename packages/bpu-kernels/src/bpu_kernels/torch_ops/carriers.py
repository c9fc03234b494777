"""CARRIERS: the floating types in which products of integers are summed exactly, by device.

int8 is held exactly by float32 and by what tensor cores make of it (TF32 keeps 11 bits). Products are summed in
float32, exactly and in any order while no partial sum can reach 2**24. bfloat16 and float16 would hold int8 as well,
but torch rounds their sums to their own few bits again, so neither is a carrier. float64 carries everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["CARRIERS", "FLOAT64", "Carrier", "carrier_for", "tensor_cores"]


@dataclass(frozen=True, kw_only=True)
class Carrier:
    """How a device sums products of integers."""

    dtype: torch.dtype
    """Of the operands and of the sums."""
    limit: int
    """Sums are exact while none can reach it."""
    as_products: bool = False
    """Whether convolutions are written as matrix products, since those of the device's library may transform their
    operands (Winograd, FFT), which is not exact."""
    reads_weights: bool = False
    """Whether the weights may be looked at to bound the sums; on a GPU that would wait for it."""

    @property
    def taps(self) -> int:
        """So many products of int8 values always sum exactly."""
        return self.limit // (128 * 128)


FLOAT64 = Carrier(dtype=torch.float64, limit=2**53)

CARRIERS: dict[str, Carrier] = {
    "cpu": Carrier(dtype=torch.float32, limit=2**24, reads_weights=True),
    "cuda": Carrier(dtype=torch.float32, limit=2**24, as_products=True),
}
"""Type of device -> carrier of int8; other devices, and int16, take ``FLOAT64``."""


def carrier_for(*operands: Tensor) -> Carrier:
    """Return the carrier of integer operands."""
    if any(each.dtype != torch.int8 for each in operands):
        return FLOAT64
    return CARRIERS.get(operands[0].device.type, FLOAT64)


@contextmanager
def tensor_cores() -> Iterator[None]:
    """Let float32 matrix products of a GPU run on its tensor cores, as TF32."""
    settings: Any = torch.backends.cuda.matmul
    name, wanted = ("fp32_precision", "tf32") if hasattr(settings, "fp32_precision") else ("allow_tf32", True)
    before = getattr(settings, name)
    setattr(settings, name, wanted)
    try:
        yield
    finally:
        setattr(settings, name, before)

"""The errors of this package, and the refusals that ``prepare_qat_fx`` collects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "ArgumentError",
    "BpuQatError",
    "CaptureError",
    "ConvertError",
    "InputError",
    "NotOnGridError",
    "PrepareError",
    "QTensorError",
    "Refusal",
]


class BpuQatError(Exception):
    """Base of all errors that this package raises on purpose."""


class ArgumentError(BpuQatError, ValueError):
    """An argument that is not what is documented."""


class QTensorError(BpuQatError, NotImplementedError):
    """An operation that quantized tensors do not have."""


class NotOnGridError(BpuQatError, ValueError):
    """A tensor that should be quantized is not."""


class InputError(BpuQatError, ValueError):
    """A tensor that a quantized module cannot take, by its shape or by what it is."""


class CaptureError(BpuQatError, RuntimeError):
    """A converted model that torch cannot trace, export or compile as it is."""


class ConvertError(BpuQatError, ValueError):
    """A model that cannot be converted."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """One thing that cannot be quantized, why, and what to do about it."""

    path: str
    """Module path, or name of the node."""
    what: str
    """Kind of operation, e.g. ``Conv2d``."""
    reason: str
    way_out: str
    floatable: bool = False
    """Whether leaving the operator in float would do, as hybrid models have it."""

    def __str__(self) -> str:
        return f"{self.path} ({self.what}): {self.reason}. {self.way_out}"


class PrepareError(BpuQatError, ValueError):
    """A model that cannot be prepared; ``refusals`` holds every offending place."""

    def __init__(self, refusals: Sequence[Refusal], march: object) -> None:
        self.refusals = tuple(refusals)
        lines = "\n".join(f"  {refusal}" for refusal in self.refusals)
        count = len(self.refusals)
        super().__init__(f"{count} place{'s' * (count > 1)} of the model cannot be quantized for {march}:\n{lines}")

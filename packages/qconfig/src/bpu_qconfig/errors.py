"""The errors and warnings of this package: one base, and one class per thing that can be wrong."""

from __future__ import annotations

__all__ = ["BpuQConfigError", "FakeQuantStateWarning", "InvalidQConfigError", "MarchNotSetError", "ObservationError"]


class BpuQConfigError(Exception):
    """Base of all errors that this package raises on purpose."""


class MarchNotSetError(BpuQConfigError, RuntimeError):
    """The march was asked for before it was set."""


class InvalidQConfigError(BpuQConfigError, ValueError):
    """A qconfig, a qconfig_dict or an argument of a fake quantizer or observer cannot be used."""


class ObservationError(BpuQConfigError, ValueError):
    """A batch cannot be observed: it is empty, or holds NaN or infinity."""


class FakeQuantStateWarning(UserWarning):
    """The state of fake quantization was set in an order that the guide advises against."""

"""The errors of this package."""

from __future__ import annotations

__all__ = [
    "BpuDeployError",
    "LoweringError",
    "ManifestError",
    "OptionError",
    "SourceError",
    "StandInError",
    "SurgeryError",
]


class BpuDeployError(Exception):
    """Base of all errors that this package raises on purpose."""


class LoweringError(BpuDeployError, ValueError):
    """A converted model that cannot become a Program."""


class StandInError(LoweringError, AttributeError):
    """Something is asked of a tensor that is only known when the model runs."""


class SurgeryError(BpuDeployError, ValueError):
    """A graph that does not have what an edit needs."""


class SourceError(BpuDeployError, TypeError):
    """Something that no Program can be made of."""


class ManifestError(BpuDeployError, ValueError):
    """Text that is no manifest of segments."""


class OptionError(BpuDeployError, ValueError):
    """An option with a value that it does not have."""

"""The errors of this package."""

from __future__ import annotations

__all__ = ["BpuDeployError", "LoweringError", "SurgeryError"]


class BpuDeployError(Exception):
    """Base of all errors that this package raises on purpose."""


class LoweringError(BpuDeployError, ValueError):
    """A converted model that cannot become a Program."""


class SurgeryError(BpuDeployError, ValueError):
    """A graph that does not have what an edit needs."""

"""The errors of this package: one base, and one class per thing that can be wrong."""

from __future__ import annotations


class BpuKernelsError(Exception):
    """Base of all errors that this package raises on purpose."""


class UnsupportedError(BpuKernelsError, ValueError):
    """The march cannot do what was asked; the message lists every reason."""


class InvalidProgramError(BpuKernelsError, ValueError):
    """A Program, or the file of one, is not well formed."""

"""The errors of this package; all of them are FxFusionError."""

from __future__ import annotations


class FxFusionError(RuntimeError):
    """Base of every error that this package raises on purpose."""


class TraceError(FxFusionError):
    """The model's forward cannot be recorded as a graph; the message names the user's own line and the way out."""


class WrapError(FxFusionError, TypeError):
    """`wrap` was given something that it cannot keep as one node."""


class PatternError(FxFusionError, ValueError):
    """A fusion pattern is malformed, or is registered already with another handler."""


class ConfigError(FxFusionError, ValueError):
    """A configuration has an unknown key or names something that does not exist."""


class UsageError(FxFusionError):
    """A module is called in a way that has no meaning."""


class InputShapeError(FxFusionError, ValueError):
    """A tensor has a shape for which the module's result would be wrong."""


class PartialWriteError(Exception):
    """A write into a part of a tensor cannot be recorded; the tracer turns it into a TraceError that shows the line."""

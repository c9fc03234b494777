"""The errors of this package: asking for a documented name that does not exist yet."""

from __future__ import annotations

__all__ = ["HorizonCompatError", "NotAvailableError", "NotImportableError"]


class HorizonCompatError(Exception):
    """Base of all errors that this package raises on purpose."""


class NotAvailableError(HorizonCompatError, AttributeError):
    """``module.name`` of a name that the vendor's plugin documents and this version does not have."""


class NotImportableError(HorizonCompatError, ImportError):
    """``from module import name`` of such a name."""

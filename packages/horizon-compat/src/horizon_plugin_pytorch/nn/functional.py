"""Functions for detection in the vendor's plugin; every name says what there is instead."""

from __future__ import annotations

from ..unavailable import explain_missing

__getattr__ = explain_missing(__name__)

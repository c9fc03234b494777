"""Whether batch normalization is folded before quantization-aware training, or kept until conversion."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from .errors import ArgumentError

__all__ = ["QATMode", "get_qat_mode", "qat_mode_scope", "set_qat_mode"]


class QATMode(Enum):
    """How ``prepare_qat_fx`` treats a batch normalization behind a layer with weights."""

    FuseBN = "fuse_bn"
    """Fold it at once (default): training continues on the folded weights."""
    WithBN = "with_bn"
    """Keep it in training: it normalizes by the batch's statistics; evaluation and conversion fold the running ones."""
    WithBNReverseFold = "with_bn_reverse_fold"
    """Not supported; use WithBN."""


_mode = QATMode.FuseBN


def set_qat_mode(mode: QATMode) -> None:
    """Choose the mode for the following calls of ``prepare_qat_fx``.

    Raises:
        ArgumentError: not a member of QATMode, or one that is not supported.
    """
    global _mode
    if mode not in (QATMode.FuseBN, QATMode.WithBN):
        raise ArgumentError(f"expected QATMode.FuseBN or QATMode.WithBN, got {mode!r}")
    _mode = mode


def get_qat_mode() -> QATMode:
    """Return the current mode."""
    return _mode


@contextmanager
def qat_mode_scope(mode: QATMode) -> Iterator[None]:
    """Use a mode within a ``with`` block."""
    before = get_qat_mode()
    set_qat_mode(mode)
    try:
        yield
    finally:
        set_qat_mode(before)

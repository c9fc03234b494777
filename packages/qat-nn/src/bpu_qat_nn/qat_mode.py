"""Whether batch normalization is folded before quantization-aware training, or kept until conversion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from .errors import BpuQatError

__all__ = ["QATMode", "folded_batch_norm", "get_qat_mode", "qat_mode_scope", "set_qat_mode"]


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
        BpuQatError: not a member of QATMode, or one that is not supported.
    """
    global _mode
    if mode not in (QATMode.FuseBN, QATMode.WithBN):
        raise BpuQatError(f"expected QATMode.FuseBN or QATMode.WithBN, got {mode!r}")
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


def folded_batch_norm(
    bn: nn.Module,
    weight: Tensor,
    bias: Tensor | None,
    canonical: Callable[[Tensor], Tensor],
    restored: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Return weight and bias with the running statistics folded in, differentiably.

    ``w' = w * gamma / sqrt(var + eps)``, ``b' = (b - mean) * gamma / sqrt(var + eps) + beta``.

    Args:
        bn: batch normalization with running statistics.
        weight: in the layer's own layout.
        bias: [O], or None for zeros.
        canonical: brings weights to output channel first.
        restored: brings them back.
    """
    norm: Any = bn
    factor = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        factor = factor * norm.weight
    first = canonical(weight)
    folded = restored(first * factor.reshape(-1, *(1,) * (first.dim() - 1)))
    shift = -norm.running_mean if bias is None else bias - norm.running_mean
    shift = shift * factor
    return folded, shift if norm.bias is None else shift + norm.bias

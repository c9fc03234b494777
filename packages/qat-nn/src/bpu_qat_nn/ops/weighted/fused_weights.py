"""Weights fake-quantized by the native engine in one pass: range, scale, integers, and where the gradient passes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from bpu_kernels.dtypes import qint8
from bpu_kernels.torch_ops import OutputMask, Range, RowMask, Rows, has_passes, train_rows
from bpu_qconfig import FakeQuantize
from bpu_qconfig.followed_range import followed_range

from ...errors import InputError
from ...qat_module import fake_quantizes, observes

__all__ = ["fake_quantized", "is_plain", "quantize_weights", "range_of", "without_bits"]


def is_plain(fake_quant: FakeQuantize) -> bool:
    """Whether a fake quantizer does what the engine does: the plain rule, and no gradient where it clips."""
    return type(fake_quant) is FakeQuantize and fake_quant.saturate is not False


def range_of(fake_quant: FakeQuantize, entries: int) -> Range:
    """Return what the engine reads and writes; it observes where that is switched on and it knows the rule."""
    observer, scale = fake_quant.activation_post_process, fake_quant.scale.detach()
    return followed_range(observer, scale, entries, observes=observes(fake_quant))


def quantize_weights(fake_quant: FakeQuantize, weight: Tensor) -> tuple[Rows, Tensor]:
    """Observe and quantize the weights; return them, and a scale per row."""
    by = range_of(fake_quant, weight.shape[0])
    if not by.observes:
        fake_quant.observe(weight)
        by = range_of(fake_quant, weight.shape[0])
        by = replace(by, observes=False)
    rows = train_rows(weight, by)
    observer = fake_quant.activation_post_process
    if rows is None:
        fake_quant.observe(weight)  # says what is wrong
        raise InputError(f"{observer.path}: the weights hold NaN or infinity, which has no integer")
    observer.batches += by.observes
    return rows, by.scale


_NONE = torch.empty(0, dtype=torch.uint8)

_Mask = TypeVar("_Mask", OutputMask, RowMask)


def without_bits(mask: _Mask | None) -> _Mask | None:
    """Return what describes a mask; its bits are saved as torch saves tensors, so that they can be moved elsewhere."""
    return None if mask is None else replace(mask, packed=_NONE)


def fake_quantized(fake_quant: FakeQuantize, weight: Tensor) -> Tensor:
    """Return ``fake_quant(weight)``, computed by the engine where it can."""
    ordinary = is_plain(fake_quant) and fake_quant.dtype is qint8 and fake_quantizes(fake_quant)
    if not ordinary or torch.compiler.is_compiling() or not has_passes(weight):
        return fake_quant(weight)  # type: ignore[no-any-return]
    values: Tensor = _Weights.apply(weight, fake_quant)  # type: ignore[no-untyped-call]
    return values


class _Weights(torch.autograd.Function):
    """Real values of the integers, with the gradient of what was not clipped."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, fake_quant: FakeQuantize) -> Tensor:
        rows, scale = quantize_weights(fake_quant, weight)
        ctx.passes = without_bits(rows.passes)
        ctx.save_for_backward(None if rows.passes is None else rows.passes.packed)
        return rows.steps.mul_(scale.reshape(-1, *(1,) * (weight.dim() - 1)))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        if ctx.passes is None:
            return grads[0], None
        (packed,) = ctx.saved_tensors
        mask: RowMask = replace(ctx.passes, packed=packed)
        return mask.masked_(grads[0].clone()), None

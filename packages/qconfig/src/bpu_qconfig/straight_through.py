"""The gradient of quantization: straight through the rounding, and none where a value was clamped.

Each function computes ``q * scale`` for integer-valued ``q`` and nothing else; they differ in what flows back. Shapes:
``x`` and ``q`` any, ``scale``, ``low``, ``high`` and ``alpha`` broadcast against them and keep their gradient's shape.
Half-precision values are multiplied in float32 and rounded once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from .bitmask import memory_order, pack_mask, unpack_mask

__all__ = ["clipped", "dequantize", "learned_clip", "learned_step", "passed", "widened"]


def widened(x: Tensor) -> Tensor:
    """Return half-precision tensors as float32, others as they are."""
    return x if x.dtype in (torch.float32, torch.float64) else x.to(torch.float32)


def dequantize(q: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``q * scale``."""
    return (widened(q) * scale).to(dtype)


def passed(x: Tensor, q: Tensor, scale: Tensor) -> Tensor:
    """Gradient of x: the incoming one, everywhere."""
    return _call(_Passed, x, q, scale)


def clipped(x: Tensor, q: Tensor, scale: Tensor, low: Tensor, high: Tensor, *, pack: bool) -> Tensor:
    """Gradient of x: the incoming one where ``low <= x <= high``, else 0.

    For the backward pass one bit per element is kept if ``pack``, else one byte.
    """
    return _call(_Clipped, x, q, scale, low, high, pack)


def learned_step(
    x: Tensor, q: Tensor, scale: Tensor, low: Tensor, high: Tensor, factor: float, through: bool
) -> Tensor:
    """Gradient of x as ``clipped`` (as ``passed`` if ``through``); of the scale, by equation (3) of LSQ.

    S. K. Esser et al., "Learned step size quantization", ICLR 2020: ``q - x / scale`` inside the range and ``q``
    outside, where q is the smallest or largest integer; times the gradient scale ``factor`` of its section 2.2.
    """
    return _call(_LearnedStep, x, q, scale, low, high, factor, through)


def learned_clip(
    x: Tensor, q: Tensor, scale: Tensor, low: Tensor, high: Tensor, alpha: Tensor, through: bool
) -> Tensor:
    """Gradient of x as ``clipped`` (as ``passed`` if ``through``); of alpha: the sign of x outside the range, 0 inside.

    J. Choi et al., "PACT: Parameterized clipping activation for quantized neural networks", 2018, equation (3), with
    the sign for the negative side that signed data has.
    """
    return _call(_LearnedClip, x, q, scale, low, high, alpha, through)


def _call(function: type[torch.autograd.Function], *args: Any) -> Tensor:
    result: Tensor = function.apply(*args)  # type: ignore[no-untyped-call]
    return result


def _inside(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    wide = widened(x)
    return (wide >= low).logical_and_(wide <= high)


class _Passed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, q: Tensor, scale: Tensor) -> Tensor:
        return dequantize(q, scale, x.dtype)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad, None, None


class _Clipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, q: Tensor, scale: Tensor, low: Tensor, high: Tensor, pack: bool) -> Tensor:
        inside = _inside(x, low, high)
        ctx.pack, ctx.order = pack, memory_order(x)
        ctx.save_for_backward(pack_mask(inside, ctx.order) if pack else inside)
        return dequantize(q, scale, x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        if ctx.pack:
            inside = unpack_mask(inside, grad.shape, ctx.order)
        return torch.where(inside, grad, 0.0), None, None, None, None, None


class _LearnedStep(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, q: Tensor, scale: Tensor, low: Tensor, high: Tensor, factor: float, through: bool
    ) -> Tensor:
        ctx.save_for_backward(x, q, scale, low, high)
        ctx.factor, ctx.through = factor, through
        return dequantize(q, scale, x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, q, scale, low, high = ctx.saved_tensors
        inside = _inside(x, low, high)
        slope = widened(q) - torch.where(inside, widened(x) / scale, 0.0)
        scale_grad = (widened(grad) * slope).sum_to_size(scale.shape) * ctx.factor
        x_grad = grad if ctx.through else torch.where(inside, grad, 0.0)
        return x_grad, None, scale_grad.to(scale.dtype), None, None, None, None


class _LearnedClip(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, q: Tensor, scale: Tensor, low: Tensor, high: Tensor, alpha: Tensor, through: bool
    ) -> Tensor:
        ctx.save_for_backward(x, low, high, alpha)
        ctx.through = through
        return dequantize(q, scale, x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, low, high, alpha = ctx.saved_tensors
        inside = _inside(x, low, high)
        outside_grad = torch.where(inside, 0.0, widened(grad) * torch.sign(widened(x)))
        x_grad = grad if ctx.through else torch.where(inside, grad, 0.0)
        return x_grad, None, None, None, None, outside_grad.sum_to_size(alpha.shape).to(alpha.dtype), None

"""A layer's training step on the native engine: one convolution of integers, and one pass over what it gives.

It computes what ``WeightedQAT`` computes in operators of torch, and keeps for the gradient only the input's and the
weight's real values, which the float layer keeps too, and one bit per element of the output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bpu_kernels.dtypes import qint8
from bpu_kernels.torch_ops import Bits, LayerPass, Quantized, has_passes, quantize_rows
from bpu_qconfig import FakeQuantize, MinMaxObserver, MovingAverageMinMaxObserver

from ..qat_module import observes
from ..qtensor import QTensor, plain
from .weighted_operator import SAFE_TAPS, IntegerWeight

if TYPE_CHECKING:
    from .weighted import WeightedQAT

__all__ = ["can_fuse", "train_fused"]

_FROM_EXTREMES = (MinMaxObserver, MovingAverageMinMaxObserver)
"""Observers to whom the smallest and the largest value tell all that they want to know."""


def can_fuse(layer: WeightedQAT, x: QTensor, addend: tuple[QTensor, ...]) -> bool:
    """Whether this call is of the ordinary kind: int8, float32, on the CPU, with plain fake quantizers."""
    post, on_weights = layer.activation_post_process, layer.weight_fake_quant
    return (
        post is not None
        and _is_plain(post)
        and _is_plain(on_weights)
        and (not observes(post) or post.fixed or type(post.activation_post_process) in _FROM_EXTREMES)
        and all(each.dtype is qint8 for each in (x, *addend))
        and post.dtype is qint8
        and layer.canonical(layer.weight)[0].numel() <= SAFE_TAPS
        and not torch.compiler.is_compiling()
        and not any(layer.is_spread(each, x, layer.weight) for each in addend)
        and has_passes(plain(x), layer.weight, *map(plain, addend))
    )


def _is_plain(fake_quant: FakeQuantize) -> bool:
    return type(fake_quant) is FakeQuantize and fake_quant.saturate is not False


@dataclass(frozen=True, kw_only=True)
class _Call:
    """What one call of a layer computes with, besides what has a gradient."""

    layer: WeightedQAT
    x_steps: Tensor
    weight: IntegerWeight
    weight_values: Tensor
    """Real values, the layer's own layout."""
    weight_passes: Bits | None
    x: QTensor
    addend: tuple[QTensor, ...]


def train_fused(layer: WeightedQAT, x: QTensor, *addend: QTensor) -> QTensor:
    """Return the output of a call that ``can_fuse``."""
    weight, bias = layer.float_parameters()
    on_weights = layer.weight_fake_quant
    on_weights.observe(weight.detach())
    quantized = _quantize(on_weights, weight.detach())
    scale = on_weights.scale.detach().double()
    whole = IntegerWeight(
        quantized.steps, scale, None if bias is None else bias.detach(), torch.from_numpy(quantized.sums)
    )
    fitted = layer.fitting(whole, x, addend)
    values = quantized.values
    if fitted is not whole:
        values = fitted.steps * fitted.scale.float().reshape(-1, *(1,) * (weight.dim() - 1))
    call = _Call(
        layer=layer,
        x_steps=x.int_repr(),
        weight=fitted,
        weight_values=layer.restored(values),
        weight_passes=quantized.passes,
        x=x,
        addend=addend,
    )
    value, steps = _Layer.apply(plain(x), weight, bias, *(map(plain, addend) if addend else (None,)), call)  # type: ignore[no-untyped-call]
    assert layer.activation_post_process is not None
    out = layer.output()
    return QTensor(value, out.scale, None, out.dtype, steps=steps)


def _quantize(fake_quant: FakeQuantize, weight: Tensor) -> Quantized:
    return quantize_rows(weight.contiguous(), fake_quant.scale.detach(), fake_quant.quant_min, fake_quant.quant_max)


def _forward(call: _Call, needs_gradient: bool) -> tuple[Tensor, Tensor | None, Bits | None]:
    layer, weight, post = call.layer, call.weight, call.layer.activation_post_process
    assert post is not None
    acc = layer.linear_map(call.x_steps.float(), layer.restored(weight.steps), None)
    channels = weight.steps.shape[0]
    unit = (call.x.scale.detach().double() * weight.scale).float().expand(channels).numpy()
    bias = np.zeros(channels, np.float32) if weight.bias is None else weight.bias.clone().numpy()
    residual = (call.addend[0].int_repr(), call.addend[0].data) if call.addend else None
    axis = layer.channel_axis(acc.dim())
    passes = LayerPass(acc, axis, residual=residual, unit=unit, bias=bias, activation=layer.relu)
    if observes(post) and not post.fixed:
        post.observe(passes.extremes())
    out = layer.output()
    scale = np.float32(float(out.scale))
    low = 0 if layer.relu is not None else qint8.min
    high = min(qint8.max, round(6.0 / float(out.scale))) if layer.relu == "relu6" else qint8.max
    passing = (float((post.quant_min - np.float32(0.5)) * scale), float((post.quant_max + np.float32(0.5)) * scale))
    stored_bias, multiplier, residual_scale = layer.choose(weight, out, call.x, call.addend)
    return passes.output(
        layer.row,
        multiplier,
        stored_bias,
        residual_scale,
        limits=(low, high),
        scale=float(scale),
        passing=passing if needs_gradient else None,
    )


class _Layer(torch.autograd.Function):
    """Values of the integers; the gradient of the float layer with fake-quantized weights."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, addend: Tensor | None, call: _Call
    ) -> tuple[Tensor, Tensor]:
        steps, values, ctx.bits = _forward(call, any(ctx.needs_input_grad))
        assert values is not None
        ctx.layer, ctx.weight_passes = call.layer, call.weight_passes
        ctx.save_for_backward(x, call.weight_values)
        ctx.mark_non_differentiable(steps)
        return values, steps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_values = ctx.saved_tensors
        gradient = ctx.bits.masked(grads[0])
        x_grad, weight_grad, bias_grad = ctx.layer.gradients(gradient, x, weight_values, ctx.needs_input_grad[:3])
        if weight_grad is not None:
            weight_grad = ctx.layer.canonical(weight_grad)
            if ctx.weight_passes is not None:
                weight_grad = ctx.weight_passes.masked(weight_grad, in_place=True)
        return x_grad, weight_grad, bias_grad, gradient if ctx.needs_input_grad[3] else None, None

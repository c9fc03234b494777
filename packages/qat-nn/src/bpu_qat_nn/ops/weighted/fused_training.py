"""A layer's training step on the native engine: one convolution of integers, and two passes over what it gives.

It computes what ``WeightedQAT`` computes in operators of torch, and keeps for the gradient only the input's real
values, which the float layer keeps too, the weight's integers in int8, and one bit per element of the output.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bpu_kernels.dtypes import qint8
from bpu_kernels.torch_ops import (
    LayerPass,
    LayerTraining,
    OutputMask,
    Outputs,
    RowMask,
    has_passes,
    row_values,
)
from bpu_qconfig.followed_range import FROM_EXTREMES

from ...errors import InputError
from ...qat_module import observes
from ...qtensor import QTensor, plain
from .fused_weights import is_plain, quantize_weights, range_of, without_bits
from .operator import SAFE_TAPS, IntegerWeight

if TYPE_CHECKING:
    from .layer import WeightedQAT

__all__ = ["can_fuse", "train_fused"]


def can_fuse(layer: WeightedQAT, inputs: tuple[QTensor, ...]) -> bool:
    """Whether this call is of the ordinary kind: int8, float32, on the CPU, with plain fake quantizers."""
    x, *addend = inputs
    on_weights, weight = layer.weight_fake_quant, layer.weight
    return (
        len(addend) == layer.adds
        and on_weights.dtype is qint8
        and all(each.dtype is qint8 for each in inputs)
        and is_plain(on_weights)
        and _gives_fusible(layer)
        and weight.numel() <= SAFE_TAPS * layer.canonical(weight).shape[0]
        and not torch.compiler.is_compiling()
        and has_passes(weight, *map(plain, inputs))
        and not any(layer.is_spread(each, x, weight) for each in addend)
    )


def _gives_fusible(layer: WeightedQAT) -> bool:
    """Whether the output is int8 with a plain fake quantizer, or 32 bits of the bare layer."""
    post = layer.activation_post_process
    if post is None:
        return layer.relu is None and not layer.adds
    knows_observer = type(post.activation_post_process) in FROM_EXTREMES or not observes(post) or post.fixed
    return post.dtype is qint8 and is_plain(post) and knows_observer


@dataclass(frozen=True, kw_only=True)
class _Call:
    """What one call of a layer computes with, besides what has a gradient."""

    layer: WeightedQAT
    x: QTensor
    addend: tuple[QTensor, ...]
    steps: Tensor
    """Integers of the weights, float32, output channel first."""
    stored: Tensor
    """The same, int8."""
    scale: Tensor
    """Of the weights, float64, one entry per output channel."""
    bias: Tensor | None
    sums: Tensor
    passes: RowMask | None
    """Where the gradient of the weights passes; None: everywhere."""

    def training(self) -> LayerTraining:
        """Return the call for the engine."""
        return LayerTraining(
            self.layer.row,
            x_scale=float(self.x.scale),
            residual_scale=float(self.addend[0].scale) if self.addend else None,
            weight_scale=self.scale,
            bias=self.bias,
            sums=self.sums,
        )

    def weight(self) -> IntegerWeight:
        """Return the weights as conversion stores them."""
        return IntegerWeight(self.steps, self.scale, self.bias, self.sums)

    def at_larger_scale(self) -> _Call:
        """Return the call with weights at a scale with which bias and residual stay in range."""
        fitted = self.layer.fitting(self.weight(), self.x, self.addend)
        stored, scale = fitted.steps.to(torch.int8), fitted.scale.contiguous()
        return replace(self, steps=fitted.steps, stored=stored, scale=scale, sums=fitted.absolute_sums())


def train_fused(layer: WeightedQAT, x: QTensor, *addend: QTensor) -> QTensor:
    """Return the output of a call that ``can_fuse``."""
    weight, bias = layer.float_parameters()
    rows, scale = quantize_weights(layer.weight_fake_quant, weight.detach())
    call = _Call(
        layer=layer,
        x=x,
        addend=addend,
        steps=rows.steps,
        stored=rows.stored,
        scale=scale.double(),
        bias=None if bias is None else bias.detach().contiguous(),
        sums=rows.sums,
        passes=rows.passes,
    )
    training = call.training()
    if training.needs_larger_scale():
        call = call.at_larger_scale()
        training = call.training()
    residual = plain(addend[0]) if addend else None
    value, steps = _Layer.apply(plain(x), weight, bias, residual, call, training)  # type: ignore[no-untyped-call]
    wide = layer.activation_post_process is None
    out = layer.wide_output(call.weight(), x) if wide else layer.output()
    axis = layer.channel_axis(value.dim()) if wide else -1
    return QTensor(value, out.scale, None, out.dtype, axis, steps=steps)


def _forward(call: _Call, training: LayerTraining, needs_gradient: bool) -> Outputs:
    layer, post = call.layer, call.layer.activation_post_process
    acc = layer.linear_map(call.x.int_repr().float(), layer.restored(call.steps), None)
    if call.addend and call.addend[0].shape != acc.shape:
        layer.expect_addend((call.x, *call.addend), layer.weight)  # says what is wrong
    if post is None:
        wide = layer.finished(acc, call.weight(), layer.wide_output(call.weight(), call.x), call.x)
        return Outputs(values=wide.dequantize(), steps=plain(wide), passes=None)
    residual = (call.addend[0].int_repr(), call.addend[0].data) if call.addend else None
    passes = LayerPass(acc, layer.channel_axis(acc.dim()), residual=residual, activation=layer.relu)
    by = range_of(post, 1)
    if not by.observes and observes(post) and not post.fixed:
        _observe_extremes(call, passes)
        by = replace(range_of(post, 1), observes=False)
    found = training.run(passes, by, needs_gradient=needs_gradient)
    if found is None:
        _observe_extremes(call, passes)  # says what is wrong
        raise InputError(f"{layer.label}: an output is NaN or infinite")
    post.activation_post_process.batches += by.observes
    return found


def _observe_extremes(call: _Call, passes: LayerPass) -> None:
    """Show the observer the smallest and the largest output."""
    unit = call.x.scale.detach().double() * call.scale
    bias = torch.zeros_like(unit) if call.bias is None else call.bias
    assert call.layer.activation_post_process is not None
    call.layer.activation_post_process.observe(passes.extremes(unit, bias))


class _Layer(torch.autograd.Function):
    """Values of the integers; the gradient of the float layer with fake-quantized weights."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        addend: Tensor | None,
        call: _Call,
        training: LayerTraining,
    ) -> tuple[Tensor, Tensor]:
        out = _forward(call, training, any(ctx.needs_input_grad))
        ctx.layer, ctx.passes, ctx.weight_passes = call.layer, without_bits(out.passes), without_bits(call.passes)
        bits = [None if mask is None else mask.packed for mask in (out.passes, call.passes)]
        ctx.save_for_backward(x, call.stored, call.scale.float(), *bits)
        ctx.mark_non_differentiable(out.steps)
        return out.values, out.steps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        layer, needed, (x, stored, scale, bits, weight_bits) = ctx.layer, ctx.needs_input_grad, ctx.saved_tensors
        gradient, bias_grad = _passed(ctx, bits, grads[0])
        weight = layer.restored(row_values(stored, scale))
        x_grad, weight_grad = layer.gradients(gradient, x, weight, needed[:2])
        if weight_grad is not None:
            weight_grad = layer.canonical(weight_grad)
            if ctx.weight_passes is not None:
                weight_grad = replace(ctx.weight_passes, packed=weight_bits).masked_(weight_grad)
        return x_grad, weight_grad, bias_grad, gradient if needed[3] else None, None, None


def _passed(ctx: Any, bits: Tensor | None, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the gradient behind saturation and activation, and that of the bias if it is needed."""
    if ctx.passes is not None:
        mask: OutputMask = replace(ctx.passes, packed=bits)
        return mask.masked(gradient, sums=ctx.needs_input_grad[2])
    channels = ctx.layer.channel_axis(gradient.dim())
    others = [axis for axis in range(gradient.dim()) if axis != channels]
    return gradient, gradient.sum(others) if ctx.needs_input_grad[2] else None

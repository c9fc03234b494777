"""Layers with weights: what training and conversion of convolution, transposed convolution and linear have in common.

QAT convolves the integers themselves, held in float32 (exact below 2**24), so that training sees the sums of the board;
conversion stores the same integers as int8.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bpu_kernels.dtypes import QuantDType, qint8, qint32
from bpu_kernels.march import MarchRow
from bpu_kernels.torch_ops import finish
from bpu_qconfig import FakeQuantize, QConfig

from ...errors import ArgumentError
from ...op import Output
from ...qat_module import QATModule, fake_quantizes, full_precision, observes
from ...qtensor import QTensor, plain
from ...quantized_module import QuantizedModule
from ..clip import clip_above
from . import kept_batch_norm
from .fused_training import can_fuse, train_fused
from .fused_weights import fake_quantized
from .operator import SAFE_TAPS, IntegerWeight, WeightedOperator
from .residual import add_behind, before_addition

__all__ = ["WeightedQAT", "WeightedQuantized"]


class WeightedQAT(WeightedOperator, QATModule):
    """A layer with weights under quantization-aware training.

    Attributes: ``weight``, ``bias`` (float parameters), ``weight_fake_quant``, ``activation_post_process`` (None: the
    output keeps 32 bits), and ``bn`` where batch normalization is kept during training (qat_mode WithBN).
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    weight_fake_quant: FakeQuantize
    bn: nn.Module | None

    def __init__(self, source: nn.Module, qconfig: QConfig, row: MarchRow, path: str = "") -> None:
        super().__init__(source, qconfig, row, path)
        if qconfig.weight is None:
            raise ArgumentError(f"{path}: the qconfig has no weight part; layers with weights need one")
        layer: Any = getattr(source, "conv", source)
        self.weight, self.bias = layer.weight, layer.bias
        self.bn = getattr(source, "bn", None)
        self.weight_fake_quant = weight_fake_quant(qconfig, self.canonical(self.weight).shape[0])
        self.weight_fake_quant.activation_post_process.path = f"{path}.weight_fake_quant"

    def configure(self, source: nn.Module) -> None:
        """Take over the layer's attributes."""
        super().configure(getattr(source, "conv", source))

    def float_parameters(self) -> tuple[Tensor, Tensor | None]:
        """Return weight, output channel first, and bias, with a kept batch normalization folded in."""
        weight = self.canonical(self.weight)
        return (weight, self.bias) if self.bn is None else kept_batch_norm.folded(self.bn, weight, self.bias)

    def real(self, *inputs: Tensor) -> Tensor:
        """Compute the float layer, its weights fake-quantized if that is switched on."""
        x, *addend = (each.to(self.weight.dtype) for each in inputs)
        if self.bn is not None and self.bn.training:
            y = self._normalized_by_batch(x, self.bn)
        else:
            weight, bias = self.float_parameters()
            y = self.linear_map(x, self.restored(fake_quantized(self.weight_fake_quant, weight)), bias)
        return self.activate(y + addend[0] if addend else y)

    def _normalized_by_batch(self, x: Tensor, bn: nn.Module) -> Tensor:
        weight = kept_batch_norm.folded_for_training(bn, self.canonical(self.weight))
        y = self.linear_map(x, self.restored(fake_quantized(self.weight_fake_quant, weight)), None)
        return kept_batch_norm.unfolded(bn, y, self.bias, lambda values: self.along_output(values, y.dim()))

    def forward(self, *inputs: QTensor) -> QTensor:
        """Convolve integers and requantize as the board does, with the float layer's gradient."""
        self.expect_quantized(inputs)
        with full_precision(inputs[0].device):
            return self._forward(*inputs)

    def _forward(self, *inputs: QTensor) -> QTensor:
        post, on_weights = self.activation_post_process, self.weight_fake_quant
        batch_statistics = self.bn is not None and self.bn.training
        quantizes = fake_quantizes(on_weights) and (post is None or fake_quantizes(post))
        on_integers = quantizes and not batch_statistics and all(x.on_grid for x in inputs)
        trains = on_integers and (observes(post) or observes(on_weights))
        trained = tuple(x.as_values() for x in inputs) if trains else inputs
        if trains and can_fuse(self, trained):
            return train_fused(self, *trained)
        self.expect_addend(inputs, self.weight)
        if not on_integers:
            real = self.real(*(x.dequantize() for x in inputs))
            return self._unquantized(real) if post is None else self.quantize_output(real)
        if trains:
            return self._train_on_integers(*trained)
        needs_grad = torch.is_grad_enabled() and any(t.requires_grad for t in (*inputs, *self.parameters()))
        with torch.no_grad():
            y = self.integer_output(inputs)
        return self.from_steps(self.real(*(x.dequantize() for x in inputs)) if needs_grad else None, y)

    def _unquantized(self, real: Tensor) -> QTensor:
        """Return a high-precision output that is not on integers yet, already with its channel axis."""
        axis = self.channel_axis(real.dim())
        return QTensor(real, real.new_ones(real.shape[axis]), None, qint32, axis, on_grid=False)

    def integer_weight(self) -> IntegerWeight:
        """Return the weights as conversion stores them."""
        weight, bias = self.float_parameters()
        steps = self.weight_fake_quant.quantize(weight.detach())
        scale = self.weight_fake_quant.scale.detach().double()
        return IntegerWeight(steps, scale, None if bias is None else bias.detach())

    def integer_output(self, inputs: tuple[QTensor, ...]) -> QTensor:
        """Return exactly what the converted layer returns."""
        out = None if self.activation_post_process is None else self.output()
        sources = [*self.parameters(), *self.buffers()]
        weight = self.derived.get(sources, self.integer_weight, "weight")
        return self.run_steps(weight, out, tuple(x.as_steps() for x in inputs))

    def _train_on_integers(self, x: QTensor, *addend: QTensor) -> QTensor:
        """One convolution gives both: the accumulator's integers for the value, and the graph for the gradient."""
        weight, bias = self.float_parameters()
        fake_quant = self.weight_fake_quant
        fake_quant.observe(weight.detach())
        integer_weight = self.integer_weight()
        post = self.activation_post_process
        behind = post is not None and self.adds_behind(self.output(), (x, *addend))
        fitted = self.fitting(integer_weight, x, () if behind else addend)
        weight_scale = fitted.scale.to(weight.dtype).reshape(-1, *(1,) * (weight.dim() - 1))
        straight_through = fake_quant.straight_through(weight, integer_weight.steps)
        weight_steps = scaled(straight_through, fitted.steps, weight_scale)
        x_real, x_steps = plain(x).to(weight.dtype), x.int_repr().to(weight.dtype)
        acc = self.linear_map(scaled(x_real, x_steps, x.scale_along()), self.restored(weight_steps), None)
        unit = (x.scale.double() * fitted.scale).to(weight.dtype)
        real = acc * self.along_output(unit, acc.dim())
        if bias is not None:
            real = real + self.along_output(bias, acc.dim())
        real = self.activate(real + plain(addend[0]).to(real.dtype) if addend else real)
        if post is not None:
            post.observe(real.detach())
        with torch.no_grad():
            out = self.wide_output(fitted, x) if post is None else self.output()
            y = self.finished(acc.detach(), fitted, out, x, *addend)
        return self.from_steps(real, y)

    def finished(self, acc: Tensor, weight: IntegerWeight, out: Output, x: QTensor, *addend: QTensor) -> QTensor:
        """Return what the board gives for accumulators, integers held in a floating type."""
        if self.adds_behind(out, (x, *addend)):
            y = self._finish_layer(acc, weight, before_addition(self, out, addend[0]), x, ())
            return add_behind(self, out, y, addend[0].as_steps(), self.relu)
        result = self._finish_layer(acc, weight, out, x, addend)
        return clip_above(result, 6.0, self) if self.relu == "relu6" else result

    def _finish_layer(
        self, acc: Tensor, weight: IntegerWeight, out: Output, x: QTensor, addend: tuple[QTensor, ...]
    ) -> QTensor:
        parameters = self.parameters_for(weight, out, x, addend)
        kernel: Any = self.kernel(weight.steps.to(torch.int8), x=x.dtype, out_dtype=out.dtype, **parameters)
        narrow = x.dtype is qint8 and weight.steps.shape[1:].numel() <= SAFE_TAPS
        whole = acc.round().to(torch.int32 if x.dtype is qint8 else torch.int64)
        y = self.finish_accumulator(kernel, whole, tuple(a.int_repr() for a in addend), narrow=narrow)
        return QTensor(y, out.scale, None, out.dtype, self.channel_axis(y.dim()) if out.dtype is qint32 else -1)

    def finish_accumulator(self, kernel: Any, acc: Tensor, addend: tuple[Tensor, ...], *, narrow: bool) -> Tensor:
        """Requantize an accumulator of the float layer's output shape."""
        return finish(kernel, acc, self.row, *addend, narrow=narrow)

    def extra_repr(self) -> str:
        """Shape of the weights and the layer's attributes."""
        shown = ", ".join(f"{name}={getattr(self, name)}" for name in self.config)
        return f"weight={tuple(self.weight.shape)}" + (f", {shown}" if shown else "")


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, real: Tensor, steps: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        return steps.view_as(steps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (scale,) = ctx.saved_tensors
        return grads[0] / scale, None, None


def scaled(real: Tensor, steps: Tensor, scale: Tensor) -> Tensor:
    """Return ``steps`` with the gradient of ``real / scale``."""
    result: Tensor = _Scaled.apply(real, steps, scale)  # type: ignore[no-untyped-call]
    return result


def weight_fake_quant(qconfig: QConfig, channels: int) -> FakeQuantize:
    """Create the weight's fake quantizer, with one scale per output channel if the qconfig says so."""
    assert qconfig.weight is not None
    probe: FakeQuantize = qconfig.weight()
    made: FakeQuantize = qconfig.weight(channel_len=channels) if probe.is_per_channel else probe
    return made


class WeightedQuantized(WeightedOperator, QuantizedModule):
    """A converted layer.

    Buffers: ``weight`` (int8, the layer's own layout), ``weight_scale`` ([1] or [O]), ``bias`` (real values, absent
    where the layer has none), and ``scale`` of the output unless it keeps 32 bits. The integers that depend on the
    input's scale (bias, shifts, multipliers) are derived when it is first seen.
    """

    dtype_without_scale: ClassVar[QuantDType] = qint32
    weight: Tensor
    weight_scale: Tensor
    bias: Tensor | None

    def __init__(self, source: WeightedQAT) -> None:
        super().__init__(source)
        with torch.no_grad():
            whole = source.integer_weight()
        self.register_buffer("weight", self.restored(whole.steps.to(torch.int8)).contiguous())
        self.register_buffer("weight_scale", source.weight_fake_quant.scale.detach().clone().reshape(-1))
        self.register_buffer("bias", None if whole.bias is None else whole.bias.clone())

    def integer_weight(self) -> IntegerWeight:
        """Return the stored weights."""
        return IntegerWeight(self.canonical(self.weight), self.weight_scale.double(), self.bias)

    def forward(self, *inputs: QTensor) -> QTensor:
        """Compute the output's integers."""
        self.expect_axes(inputs)
        self.expect_addend(inputs, self.weight)
        out = None if self.dtype is qint32 else Output(self.scale, self.dtype)
        weight = self.derived.get([self.weight, self.weight_scale, self.bias], self.integer_weight, "weight")
        return self.run_steps(weight, out, inputs)

    def extra_repr(self) -> str:
        """Shape of the weights, attributes, scale."""
        shown = ", ".join(f"{name}={getattr(self, name)}" for name in self.config)
        return f"weight={tuple(self.weight.shape)}, {shown}, {super().extra_repr() or f'dtype={self.dtype}'}"

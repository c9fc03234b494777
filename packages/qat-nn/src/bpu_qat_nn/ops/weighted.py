"""What convolution, transposed convolution and linear layers share: integer weights, bias, residual, ReLU.

The accumulator counts in units of ``input scale * weight scale``. QAT convolves the integers themselves, held in
float32 (exact below 2**24), so that training sees the sums of the board; conversion stores the same integers as int8.
Weights are treated output channel first, (O, I / groups, ...), whatever the layer's own layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bpu_fx_fusion import FusedConvAdd
from bpu_kernels.dtypes import qint8, qint32
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.kernel import Kernel
from bpu_kernels.march import MarchRow
from bpu_kernels.multiplier import (
    Bias,
    ResidualScale,
    choose_bias,
    choose_multiplier,
    choose_residual_scale,
    smallest_weight_scale,
)
from bpu_kernels.torch_ops import finish
from bpu_qconfig import FakeQuantize, QConfig

from ..errors import BpuQatError
from ..op import Operator, Output, QATModule, QuantizedModule, fake_quantizes, observes
from ..qat_mode import folded_batch_norm
from ..qtensor import QTensor, plain
from .clip import clip_above

__all__ = ["WeightedOperator", "WeightedQAT", "WeightedQuantized"]

SAFE_TAPS = 32767
"""Up to this many products of int8, accumulator, bias and residual fit 32 bits together (multiplier.py)."""


@dataclass(frozen=True)
class IntegerWeight:
    """Weights as integers, output channel first, and what one of them means."""

    steps: Tensor
    """Integer-valued, in any type."""
    scale: Tensor
    """float64, [1] or [O]."""
    bias: Tensor | None
    """Real values, [O]."""


class WeightedOperator(Operator):
    """Arithmetic shared by the QAT and the converted form."""

    relu: str | None
    """None, "relu" or "relu6": what follows in the same operator."""
    adds: bool
    """Whether a second input is added before the ReLU."""

    def canonical(self, weight: Tensor) -> Tensor:
        """Return weights output channel first."""
        return weight

    def restored(self, weight: Tensor) -> Tensor:
        """Return weights in the layer's own layout; the inverse of ``canonical``."""
        return weight

    def kernel(self, weight: Tensor, **parameters: Any) -> Kernel:
        """Return the kernel for int8 weights (output channel first) and parameters bias, multiplier, residual, relu."""
        raise NotImplementedError

    def apply_kernel(
        self, kernel: Kernel, out: Output, x: QTensor, *addend: QTensor, axis: int, narrow: bool
    ) -> QTensor:
        """Invoke the kernel."""
        return x.invoke(kernel, self.row, x, *addend, scale=out.scale, dtype=out.dtype, axis=axis, narrow=narrow)

    def linear_map(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Compute the float operator without residual and ReLU; weights in the layer's own layout."""
        raise NotImplementedError

    def activate(self, y: Tensor) -> Tensor:
        """Apply the fused ReLU to real values."""
        if self.relu == "relu":
            return y.relu()
        return y.clamp(0.0, 6.0) if self.relu == "relu6" else y

    def along_output(self, values: Tensor, dimensions: int) -> Tensor:
        """Shape per-channel values to broadcast against an output of so many dimensions, channels second."""
        return values.reshape(-1, *(1,) * (dimensions - 2))

    def fitting(self, weight: IntegerWeight, x: QTensor, addend: tuple[QTensor, ...]) -> IntegerWeight:
        """Return the weights at a scale with which bias and residual stay in range; almost always as they are."""
        smallest = smallest_weight_scale(
            x.scale.double(),
            self.row,
            bias=None if weight.bias is None else weight.bias.double(),
            residual_scale=addend[0].scale.double() if addend else None,
            xp=torch,
        )
        if not bool((weight.scale < smallest).any()):
            return weight
        scale = torch.where(weight.scale < smallest, smallest, weight.scale)
        ratio = (weight.scale / scale).reshape(-1, *(1,) * (weight.steps.dim() - 1))
        steps = torch.where(ratio < 1.0, (weight.steps * ratio).round(), weight.steps).to(weight.steps.dtype)
        return IntegerWeight(steps, scale, weight.bias)

    def parameters_for(
        self, weight: IntegerWeight, out: Output, x: QTensor, addend: tuple[QTensor, ...]
    ) -> dict[str, Any]:
        """Choose the hardware's parameters for integer weights and the scales of input, residual and output."""
        row, channels = self.row, weight.steps.shape[0]
        unit = (x.scale.double() * weight.scale).expand(channels)
        bias = torch.zeros_like(unit) if weight.bias is None else weight.bias.double() / unit
        residual = choose_residual_scale(addend[0].scale.double() / unit, row, xp=torch) if addend else None
        if out.dtype is qint32:
            none = torch.zeros_like(unit, dtype=torch.int64)
            multiplier = Multiplier(accu_right_shift=none, output_scale=none, output_right_shift=none)
        else:
            taps = weight.steps[0].numel()
            bound = weight.steps.double().abs().flatten(1).sum(1) * -x.dtype.min + bias.abs() + 1.0
            if addend:
                bound = bound + addend[0].scale.double() / unit * -addend[0].dtype.min
            wide = x.dtype.bits == 16 and taps > row.int16_any_shift_taps
            multiplier = choose_multiplier(
                unit / out.scale.double(), bound, out.dtype, row, least_accu_shift=8 if wide else 0, xp=torch
            )
        stored = choose_bias(bias, None if out.dtype is qint32 else multiplier, row, xp=torch)
        return {
            "bias": Bias(**_int32(stored)),
            "multiplier": Multiplier(**_int32(multiplier)),
            "residual": None if residual is None else ResidualScale(**_int32(residual)),
            "relu": self.relu is not None,
        }

    def wide_output(self, weight: IntegerWeight, x: QTensor) -> Output:
        """Return the Output of a high-precision layer: accumulator units, one scale per channel."""
        scale = (x.scale.double() * weight.scale).expand(weight.steps.shape[0]).float()
        return Output(scale.contiguous(), qint32)

    def run_steps(
        self, weight: IntegerWeight, out: Output | None, inputs: tuple[QTensor, ...], *key: Tensor | None
    ) -> QTensor:
        """Invoke the kernels for integer weights; ``key`` are the tensors that the weights came from."""
        x, *rest = inputs
        addend = tuple(rest)

        def build() -> tuple[Kernel, Output]:
            fitted = self.fitting(weight, x, addend)
            chosen = self.wide_output(fitted, x) if out is None else out
            parameters = self.parameters_for(fitted, chosen, x, addend)
            return self.kernel(fitted.steps.to(torch.int8), out_dtype=chosen.dtype, **parameters), chosen

        scales = [t.scale for t in inputs]
        sources = [*key, weight.bias, *scales, None if out is None else out.scale]
        kernel, chosen = self.derived.get(sources, build, x.dtype)
        narrow = x.dtype is qint8 and weight.steps[0].numel() <= SAFE_TAPS
        wide = chosen.dtype is qint32
        y = self.apply_kernel(kernel, chosen, x, *addend, axis=1 if wide else -1, narrow=narrow)
        return clip_above(y, 6.0, self) if self.relu == "relu6" and not wide else y


def _int32(parameters: Any) -> dict[str, Tensor]:
    return {name: value.to(torch.int32) for name, value in vars(parameters).items()}


class WeightedQAT(WeightedOperator, QATModule):
    """A layer with weights under quantization-aware training.

    Attributes: ``weight``, ``bias`` (float parameters), ``weight_fake_quant``, ``activation_post_process`` (None: the
    output keeps 32 bits), and ``bn`` where batch normalization is kept during training (qat_mode WithBN).
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    weight_fake_quant: FakeQuantize
    bn: nn.Module | None
    float_type: ClassVar[type[nn.Module]]

    def __init__(self, source: nn.Module, qconfig: QConfig, row: MarchRow, path: str = "") -> None:
        super().__init__(source, qconfig, row, path)
        layer: Any = getattr(source, "conv", source)
        relu = getattr(source, "relu", None)
        self.relu = None if relu is None else "relu6" if isinstance(relu, nn.ReLU6) else "relu"
        self.adds = isinstance(source, FusedConvAdd)
        self.weight = nn.Parameter(layer.weight.detach().clone(), layer.weight.requires_grad)
        self.bias = None
        if layer.bias is not None:
            self.bias = nn.Parameter(layer.bias.detach().clone(), layer.bias.requires_grad)
        self.bn = getattr(source, "bn", None)
        channels = self.canonical(self.weight).shape[0]
        if qconfig.weight is None:
            raise BpuQatError(f"{path}: the qconfig has no weight part; layers with weights need one")
        self.weight_fake_quant = weight_fake_quant(qconfig, channels)
        self.weight_fake_quant.activation_post_process.path = f"{path}.weight_fake_quant"

    def configure(self, source: nn.Module) -> None:
        """Take over the layer's attributes."""
        super().configure(getattr(source, "conv", source))

    def float_parameters(self) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias, with a kept batch normalization folded in."""
        if self.bn is None:
            return self.weight, self.bias
        return folded_batch_norm(self.bn, self.weight, self.bias, self.canonical, self.restored)

    def real(self, *inputs: Tensor) -> Tensor:
        """Compute the float layer, its weights fake-quantized if that is switched on."""
        x, *addend = inputs
        weight, bias = self.float_parameters()
        quantized = self.restored(self.weight_fake_quant(self.canonical(weight)))
        if self.bn is not None and self.bn.training:
            y = self._normalized_by_batch(x, weight, quantized)
        else:
            y = self.linear_map(x, quantized, bias)
        return self.activate(y + addend[0] if addend else y)

    def _normalized_by_batch(self, x: Tensor, folded: Tensor, quantized: Tensor) -> Tensor:
        """Undo the folded factor of the quantized weights, then normalize by the batch's own statistics."""
        bn: Any = self.bn
        factor = bn.weight.detach() / torch.sqrt(bn.running_var + bn.eps)
        y = self.linear_map(x, quantized, None)
        y = y / self.along_output(factor, y.dim())
        if self.bias is not None:
            y = y + self.along_output(self.bias, y.dim())
        normalized: Tensor = bn(y)
        return normalized

    def forward(self, *inputs: QTensor) -> QTensor:
        """Convolve integers and requantize as the board does, with the float layer's gradient."""
        self.expect_quantized(inputs)
        self._expect_count(inputs)
        batch_statistics = self.bn is not None and self.bn.training
        high_precision = self.activation_post_process is None
        quantizes = fake_quantizes(self.weight_fake_quant) and (
            high_precision or fake_quantizes(self.activation_post_process)
        )
        if batch_statistics or not quantizes or not all(x.on_grid for x in inputs):
            return self.quantize_output(self.real(*(plain(x) for x in inputs)))
        if observes(self.activation_post_process) or observes(self.weight_fake_quant):
            return self._train_on_integers(*inputs)
        trained = (*inputs, *self.parameters(recurse=False))
        needs_grad = torch.is_grad_enabled() and any(t.requires_grad for t in trained)
        with torch.no_grad():
            y = self.integer_output(inputs)
        return self.from_steps(self.real(*(plain(x) for x in inputs)) if needs_grad else None, y)

    def integer_weight(self) -> IntegerWeight:
        """Return the weights as conversion stores them."""
        weight, bias = self.float_parameters()
        fake_quant = self.weight_fake_quant
        steps = fake_quant.quantize(self.canonical(weight).detach())
        return IntegerWeight(steps, fake_quant.scale.detach().double(), None if bias is None else bias.detach())

    def integer_output(self, inputs: tuple[QTensor, ...]) -> QTensor:
        """Return exactly what the converted layer returns."""
        out = None if self.activation_post_process is None else self.output()
        return self.run_steps(self.integer_weight(), out, tuple(x.as_steps() for x in inputs))

    def _train_on_integers(self, x: QTensor, *addend: QTensor) -> QTensor:
        """One convolution gives both: the accumulator's integers for the value, and the graph for the gradient."""
        weight, bias = self.float_parameters()
        fake_quant, canonical = self.weight_fake_quant, self.canonical(weight)
        fake_quant.observe(canonical.detach())
        steps = fake_quant.quantize(canonical.detach())
        scale = fake_quant.scale.detach().double()
        fitted = self.fitting(IntegerWeight(steps, scale, None if bias is None else bias.detach()), x, addend)
        weight_scale = fitted.scale.reshape(-1, *(1,) * (weight.dim() - 1))
        fake_quantized = fake_quant.straight_through(canonical, steps)
        weight_steps = _Scaled.apply(fake_quantized, fitted.steps, weight_scale.float())  # type: ignore[no-untyped-call]
        x_steps = _Scaled.apply(plain(x), x.int_repr().to(weight.dtype), x.scale_along())  # type: ignore[no-untyped-call]
        with torch.autocast(x.device.type, enabled=False):
            acc = self.linear_map(x_steps, self.restored(weight_steps), None)
        unit = (x.scale.double() * fitted.scale).float()
        real = acc * self.along_output(unit, acc.dim())
        if bias is not None:
            real = real + self.along_output(bias, acc.dim())
        real = self.activate(real + plain(addend[0]) if addend else real)
        post = self.activation_post_process
        if post is not None:
            post.observe(real.detach())
        with torch.no_grad():
            out = self.wide_output(fitted, x) if post is None else self.output()
            y = self._finish(acc.detach(), fitted, out, x, addend)
        return self.from_steps(real, y)

    def _finish(
        self, acc: Tensor, weight: IntegerWeight, out: Output, x: QTensor, addend: tuple[QTensor, ...]
    ) -> QTensor:
        parameters = self.parameters_for(weight, out, x, addend)
        kernel: Any = self.kernel(weight.steps.to(torch.int8), out_dtype=out.dtype, **parameters)
        narrow = x.dtype is qint8 and weight.steps[0].numel() <= SAFE_TAPS
        whole = acc.round().to(torch.int32 if x.dtype is qint8 else torch.int64)
        y = self.finish_accumulator(kernel, whole, tuple(plain(a.as_steps()) for a in addend), narrow=narrow)
        result = QTensor(y, out.scale, None, out.dtype, 1 if out.dtype is qint32 else -1)
        return clip_above(result, 6.0, self) if self.relu == "relu6" and out.dtype is not qint32 else result

    def finish_accumulator(self, kernel: Any, acc: Tensor, addend: tuple[Tensor, ...], *, narrow: bool) -> Tensor:
        """Requantize an accumulator of the float layer's output shape."""
        return finish(kernel, acc, self.row, *addend, narrow=narrow)

    def _expect_count(self, inputs: tuple[Any, ...]) -> None:
        if len(inputs) != 1 + self.adds:
            raise BpuQatError(f"{self.path or self._get_name()} expected {1 + self.adds} inputs, got {len(inputs)}")

    def extra_repr(self) -> str:
        """Shape of the weights and the layer's attributes."""
        shown = ", ".join(f"{name}={getattr(self, name)}" for name in self.config)
        return f"weight={tuple(self.weight.shape)}" + (f", {shown}" if shown else "")


class _Scaled(torch.autograd.Function):
    """Value: steps. Gradient: that of ``real / scale``."""

    @staticmethod
    def forward(ctx: Any, real: Tensor, steps: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        return steps.view_as(steps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (scale,) = ctx.saved_tensors
        return grads[0] / scale, None, None


def weight_fake_quant(qconfig: QConfig, channels: int) -> FakeQuantize:
    """Create the weight's fake quantizer, with one scale per output channel if the qconfig says so."""
    assert qconfig.weight is not None
    probe: FakeQuantize = qconfig.weight()
    per_channel = "channel" in str(probe.qscheme)
    made: FakeQuantize = qconfig.weight(channel_len=channels) if per_channel else probe
    return made


class WeightedQuantized(WeightedOperator, QuantizedModule):
    """A converted layer.

    Buffers: ``weight`` (int8, the layer's own layout), ``weight_scale`` ([1] or [O]), ``bias`` (real values, absent
    where the layer has none), and ``scale`` of the output unless it keeps 32 bits. The integers that depend on the
    input's scale (bias, shifts, multipliers) are derived when it is first seen.
    """

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor | None

    def __init__(self, source: WeightedQAT) -> None:
        super().__init__(source)
        self.relu, self.adds = source.relu, source.adds
        with torch.no_grad():
            whole = source.integer_weight()
        self.register_buffer("weight", self.restored(whole.steps.to(torch.int8)).contiguous())
        self.register_buffer("weight_scale", source.weight_fake_quant.scale.detach().clone().reshape(-1))
        self.register_buffer("bias", None if whole.bias is None else whole.bias.clone())
        if source.activation_post_process is None:
            self.dtype = qint32

    def integer_weight(self) -> IntegerWeight:
        """Return the stored weights."""
        return IntegerWeight(self.canonical(self.weight), self.weight_scale.double(), self.bias)

    def forward(self, *inputs: QTensor) -> QTensor:
        """Compute the output's integers."""
        weight = self.derived.get([self.weight, self.weight_scale, self.bias], self.integer_weight)
        out = None if self.dtype is qint32 else Output(self.scale, self.dtype)
        return self.run_steps(weight, out, inputs, self.weight, self.weight_scale)

    def extra_repr(self) -> str:
        """Shape of the weights, attributes, scale."""
        shown = ", ".join(f"{name}={getattr(self, name)}" for name in self.config)
        return f"weight={tuple(self.weight.shape)}, {shown}, {super().extra_repr() or f'dtype={self.dtype}'}"

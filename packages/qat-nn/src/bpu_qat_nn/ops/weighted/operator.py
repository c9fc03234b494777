"""The integer arithmetic that convolution, transposed convolution and linear layers share.

The accumulator counts in units of ``input scale * weight scale``; bias and residual are brought to these units, and the
hardware's parameters are chosen from the scales. Weights are treated output channel first, (O, I / groups, ...),
whatever the layer's own layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from bpu_kernels.dtypes import QuantDType, qint8, qint32
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.kernel import Kernel
from bpu_kernels.multiplier import (
    Bias,
    ResidualScale,
    choose_bias,
    choose_multiplier,
    choose_residual_scale,
    smallest_weight_scale,
)

from ...capture.captured_tensor import uncaptured
from ...errors import InputError
from ...op import Operator, Output
from ...qtensor import QTensor
from ..clip import clip_above
from ..rescale import int32_fields
from ..spread import spread_to
from .numbers import Numbers
from .residual import add_behind, before_addition, is_added_behind

__all__ = ["SAFE_TAPS", "IntegerWeight", "WeightedOperator"]

SAFE_TAPS = 32767
"""Up to this many products of int8, accumulator, bias and residual fit 32 bits together (multiplier.py)."""


@dataclass(frozen=True, eq=False)
class IntegerWeight:
    """Weights as integers, output channel first, and what one of them means."""

    steps: Tensor
    """Integer-valued, in any type."""
    scale: Tensor
    """float64, [1] or [O]."""
    bias: Tensor | None
    """Real values, [O]."""
    sums: Tensor | None = None
    """Sum of absolute steps per output channel, float64, where it is known already."""

    def absolute_sums(self) -> Tensor:
        """Return the sum of absolute steps per output channel, float64."""
        return self.steps.double().abs().flatten(1).sum(1) if self.sums is None else self.sums


class WeightedOperator(Operator):
    """``relu(layer(x, w) + b + residual)`` on integers; the layers fill in what differs."""

    relu: ClassVar[str | None] = None
    """None, "relu" or "relu6": what follows in the same operator."""
    adds: ClassVar[bool] = False
    """Whether a second input, the residual, is added before the ReLU."""
    gives_int16: ClassVar[bool] = True
    """Whether the layer has an int16 output on marches with int16, to which a residual of int16 can be added."""

    def canonical(self, weight: Tensor) -> Tensor:
        """Return weights output channel first."""
        return weight

    def restored(self, weight: Tensor) -> Tensor:
        """Return weights in the layer's own layout; the inverse of ``canonical``."""
        return weight

    def linear_map(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Compute the float operator without residual and ReLU; weights in the layer's own layout."""
        raise NotImplementedError

    def gradients(
        self, gradient: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of ``linear_map`` for input and weight, those that are needed."""
        raise NotImplementedError

    def kernel(self, weight: Tensor, *, x: QuantDType, out_dtype: QuantDType, **parameters: Any) -> Kernel:
        """Return the kernel.

        Args:
            weight: int8, output channel first.
            x: type of the input.
            out_dtype: type of the output.
            parameters: bias, multiplier, residual, relu.
        """
        raise NotImplementedError

    def apply_kernel(
        self, kernel: Kernel, out: Output, x: QTensor, *addend: QTensor, axis: int, narrow: bool
    ) -> QTensor:
        """Invoke the kernel."""
        return x.invoke(kernel, self.row, x, *addend, scale=out.scale, dtype=out.dtype, axis=axis, narrow=narrow)

    def activate(self, y: Tensor) -> Tensor:
        """Apply the fused ReLU to real values; where no gradient is recorded they are overwritten."""
        if self.relu is None:
            return y
        if torch.is_grad_enabled() and y.requires_grad:
            return y.relu() if self.relu == "relu" else y.clamp(0.0, 6.0)
        return y.relu_() if self.relu == "relu" else y.clamp_(0.0, 6.0)

    def channel_axis(self, dimensions: int) -> int:
        """Return which axis of an output of so many dimensions the channels are."""
        return 1

    def along_output(self, values: Tensor, dimensions: int) -> Tensor:
        """Shape per-channel values to broadcast against an output of so many dimensions."""
        return values.reshape(-1, *(1,) * (dimensions - 1 - self.channel_axis(dimensions)))

    def expect_addend(self, inputs: Sequence[QTensor], weight: Tensor) -> None:
        """Raise unless the residual has the output's shape, or is a 1 x 1 map that can be spread to it.

        Args:
            inputs: the input, and the residual.
            weight: of the layer's own layout; its shape counts.
        """
        if len(inputs) != 1 + self.adds:
            raise InputError(f"{self.label} expected {1 + self.adds} inputs, got {len(inputs)}")
        if not self.adds:
            return
        shape, addend = self._output_shape(inputs[0], weight), tuple(inputs[1].shape)
        if addend != shape and not (len(shape) == 4 and addend == (*shape[:2], 1, 1)):
            raise InputError(
                f"{self.label} adds a tensor of shape {addend} to a layer's output of shape {shape}; the fused "
                "addition takes equal shapes, or a 1 x 1 map as the second operand. nn.Identity() between the layer "
                "and the addition keeps them apart"
            )

    def _output_shape(self, x: QTensor, weight: Tensor) -> tuple[int, ...]:
        shapes = tuple(x.shape), tuple(weight.shape)

        def build() -> tuple[int, ...]:
            with uncaptured():
                x_meta, weight_meta = (torch.empty(each, device="meta") for each in shapes)
                return tuple(self.linear_map(x_meta, weight_meta, None).shape)

        return self.derived.get((), build, "output shape", shapes)

    def is_spread(self, addend: QTensor, x: QTensor, weight: Tensor) -> bool:
        """Whether a residual is a 1 x 1 map that is added to a larger one; the shape of the weight counts."""
        return tuple(addend.shape[2:]) == (1, 1) and self._output_shape(x, weight)[2:] != (1, 1)

    def _spread(self, addend: QTensor, x: QTensor, weight: IntegerWeight) -> QTensor:
        if tuple(addend.shape[2:]) != (1, 1):
            return addend
        return spread_to(addend, self._output_shape(x, self.restored(weight.steps)), self.row)

    def fitting(self, weight: IntegerWeight, x: QTensor, addend: tuple[QTensor, ...]) -> IntegerWeight:
        """Return the weights at a scale with which bias and residual stay in range; almost always as they are."""
        smallest = self._smallest_scale(weight, x, addend)
        if smallest is None:
            return weight
        scale = torch.where(weight.scale < smallest, smallest, weight.scale)
        ratio = (weight.scale / scale).reshape(-1, *(1,) * (weight.steps.dim() - 1))
        steps = torch.where(ratio < 1.0, (weight.steps * ratio).round(), weight.steps).to(weight.steps.dtype)
        return IntegerWeight(steps, scale, weight.bias)

    def _smallest_scale(self, weight: IntegerWeight, x: QTensor, addend: tuple[QTensor, ...]) -> Tensor | None:
        """Return the smallest weight scale with which bias and residual stay in range; None if that is no limit."""
        numbers = Numbers.of(x.scale.device)
        smallest = smallest_weight_scale(
            numbers(x.scale),
            self.row,
            bias=None if weight.bias is None else numbers(weight.bias),
            residual_scale=numbers(addend[0].scale) if addend else None,
            xp=numbers.xp,
        )
        return numbers.tensor(smallest) if bool((numbers(weight.scale) < smallest).any()) else None

    def choose(
        self, weight: IntegerWeight, out: Output, x: QTensor, addend: tuple[QTensor, ...]
    ) -> tuple[Bias, Multiplier, ResidualScale | None]:
        """Choose the hardware's parameters for integer weights and the scales of input, residual and output."""
        row, numbers = self.row, Numbers.of(x.scale.device)
        xp, sums = numbers.xp, numbers(weight.absolute_sums())
        unit = numbers(x.scale) * numbers(weight.scale) + xp.zeros_like(sums)
        bias = xp.zeros_like(unit) if weight.bias is None else numbers(weight.bias) / unit
        factor = numbers(addend[0].scale) / unit if addend else None
        residual = None if factor is None else choose_residual_scale(factor, row, xp=xp)
        if out.dtype is qint32:
            none = xp.zeros_like(unit, dtype=xp.int64)
            multiplier = Multiplier(accu_right_shift=none, output_scale=none, output_right_shift=none)
            return choose_bias(bias, None, row, xp=xp), multiplier, residual
        bound = sums * -x.dtype.min + xp.abs(bias) + 1.0
        if factor is not None:
            bound = bound + factor * -addend[0].dtype.min
        wide = x.dtype.bits == 16 and weight.steps.shape[1:].numel() > row.int16_any_shift_taps
        real = unit / numbers(out.scale)
        multiplier = choose_multiplier(real, bound, out.dtype, row, least_accu_shift=8 if wide else 0, xp=xp)
        return choose_bias(bias, multiplier, row, xp=xp), multiplier, residual

    def parameters_for(
        self, weight: IntegerWeight, out: Output, x: QTensor, addend: tuple[QTensor, ...]
    ) -> dict[str, Any]:
        """Return the chosen parameters as a kernel takes them."""
        bias, multiplier, residual = self.choose(weight, out, x, addend)
        return {
            "bias": Bias(**int32_fields(bias)),
            "multiplier": Multiplier(**int32_fields(multiplier)),
            "residual": None if residual is None else ResidualScale(**int32_fields(residual)),
            "relu": self.relu is not None and self.adds == bool(addend),
        }

    def wide_output(self, weight: IntegerWeight, x: QTensor) -> Output:
        """Return the Output of a high-precision layer: accumulator units, one scale per channel."""
        scale = (x.scale.double() * weight.scale).expand(weight.steps.shape[0]).to(x.scale.dtype)
        return Output(scale.contiguous(), qint32)

    def run_steps(self, weight: IntegerWeight, out: Output | None, inputs: tuple[QTensor, ...]) -> QTensor:
        """Invoke the kernels for integer weights.

        Args:
            weight: the weights; what is derived of them is remembered for this very object.
            out: scale and type of the output; None for 32 bits.
            inputs: the input, and the residual.
        """
        x = inputs[0]
        if out is not None and self.adds_behind(out, inputs):
            y = self._layer_steps(weight, before_addition(self, out, inputs[1]), x, ())
            return add_behind(self, out, y, inputs[1], self.relu)
        addend = tuple(self._spread(each, x, weight) for each in inputs[1:])
        return self._clipped(self._layer_steps(weight, out, x, addend))

    def adds_behind(self, out: Output, inputs: Sequence[QTensor]) -> bool:
        """Whether the residual is added behind the layer, at 16 bits."""
        return self.adds and is_added_behind([each.dtype for each in inputs], out.dtype)

    def _clipped(self, y: QTensor) -> QTensor:
        return clip_above(y, 6.0, self) if self.relu == "relu6" else y

    def _layer_steps(
        self, weight: IntegerWeight, out: Output | None, x: QTensor, addend: tuple[QTensor, ...]
    ) -> QTensor:
        def build() -> tuple[Kernel, Output]:
            fitted = self.fitting(weight, x, addend)
            chosen = self.wide_output(fitted, x) if out is None else out
            parameters = self.parameters_for(fitted, chosen, x, addend)
            return self.kernel(fitted.steps.to(torch.int8), x=x.dtype, out_dtype=chosen.dtype, **parameters), chosen

        kernel, chosen = self.derived.get([x, *addend, out], build, weight)
        narrow = x.dtype is qint8 and weight.steps.shape[1:].numel() <= SAFE_TAPS
        axis = 1 if chosen.dtype is qint32 else -1
        return self.apply_kernel(kernel, chosen, x, *addend, axis=axis, narrow=narrow)

"""QATModule: an operator under quantization-aware training; the board's integers with the float operator's gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bpu_kernels.march import MarchRow
from bpu_qconfig import FakeQuantize, QConfig

from .derived import Derived
from .errors import QTensorError
from .op import Operator, Output
from .qtensor import QTensor, plain
from .quantized_module import QuantizedModule

__all__ = ["QATModule", "fake_quantizes", "full_precision", "observes"]


def fake_quantizes(fake_quant: FakeQuantize | None) -> bool:
    """Whether a fake quantizer exists and is switched on."""
    return fake_quant is not None and bool(fake_quant.fake_quant_enabled)


def observes(fake_quant: FakeQuantize | None) -> bool:
    """Whether a fake quantizer exists and updates its scale."""
    return fake_quant is not None and bool(fake_quant.observer_enabled)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Switch autocast off: half precision holds neither scales nor the sums of integers."""
    if torch.is_autocast_enabled(device.type):
        with torch.autocast(device.type, enabled=False):
            yield
    else:
        yield


class _Replace(torch.autograd.Function):
    """Gradient of one tensor, value of another."""

    @staticmethod
    def forward(ctx: Any, real: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def with_value(real: Tensor, value: Tensor) -> Tensor:
    """Return ``value`` with the gradient of ``real``, the straight-through estimate."""
    replaced: Tensor = _Replace.apply(real, value)  # type: ignore[no-untyped-call]
    return replaced


class QATModule(Operator, nn.Module):
    """An operator under quantization-aware training.

    Args:
        source: the float module; its parameters and children are taken over as they are, not copied.
        qconfig: makes the fake quantizers.
        row: the march.
        path: where the module is in its model, for messages.
    """

    quantized: ClassVar[type[QuantizedModule]]
    """The converted form."""
    activation_post_process: FakeQuantize | None
    """Scale of the output; None if it has none of its own, or stays in 32 bits."""
    qconfig: QConfig | None

    def __init__(self, source: nn.Module, qconfig: QConfig, row: MarchRow, path: str = "") -> None:
        nn.Module.__init__(self)
        self.row, self.path = row, path
        self.qconfig = qconfig
        self.activation_post_process = None
        if self.own_scale and qconfig.activation is not None:
            self.activation_post_process = qconfig.activation()
            self.activation_post_process.activation_post_process.path = f"{path}.activation_post_process"
        self.train(source.training)
        self.configure(source)

    def train(self, mode: bool = True) -> Any:
        """Switch between training and evaluation, in which what is derived of weights and scales is remembered."""
        self.derived = Derived(keeps=not mode, by_contents=True)
        return super().train(mode)

    def expect_quantized(self, inputs: tuple[Any, ...]) -> None:
        """Raise unless every input is a QTensor of the right number of axes."""
        for index, x in enumerate(inputs):
            if not isinstance(x, QTensor):
                raise QTensorError(
                    f"{self.label} expected a quantized tensor as input {index}, got {type(x).__name__}; put a "
                    "QuantStub between the float value and this module"
                )
        self.expect_axes(inputs)

    def output(self) -> Output:
        """Return scale and type of the output; a copy of a scale that can still change while this pass runs."""
        fake_quant = self.activation_post_process
        assert fake_quant is not None
        scale = fake_quant.scale.detach()
        return Output(scale.clone() if observes(fake_quant) else scale, fake_quant.dtype)

    def forward(self, *inputs: QTensor) -> QTensor:
        """Give the board's integers times the scale, with the float operator's gradient; real values in CALIBRATION."""
        return self.compute(self.real, self.steps, inputs)

    def compute(
        self, real: Callable[..., Tensor], steps: Callable[..., QTensor], inputs: tuple[QTensor, ...]
    ) -> QTensor:
        """Combine the two meanings of an operator; see ``forward``.

        Args:
            real: takes the inputs' real values.
            steps: takes an Output and the inputs' integers.
            inputs: the quantized inputs.
        """
        self.expect_quantized(inputs)
        with full_precision(inputs[0].device):
            combine = self._with_own_scale if self.own_scale else self._with_scale_of_input
            return combine(real, steps, inputs)

    def _with_own_scale(
        self, real: Callable[..., Tensor], steps: Callable[..., QTensor], inputs: tuple[QTensor, ...]
    ) -> QTensor:
        fake_quant = self.activation_post_process
        if not fake_quantizes(fake_quant) or not all(x.on_grid for x in inputs):
            return self.quantize_output(real(*(x.dequantize() for x in inputs)))
        assert fake_quant is not None
        values = real(*(x.dequantize() for x in inputs)) if _needs_grad(inputs) or observes(fake_quant) else None
        if values is not None:
            fake_quant.observe(values.detach())
        with torch.no_grad():
            integers = steps(self.output(), *(x.as_steps() for x in inputs))
        return self.from_steps(values, integers)

    def _with_scale_of_input(
        self, real: Callable[..., Tensor], steps: Callable[..., QTensor], inputs: tuple[QTensor, ...]
    ) -> QTensor:
        first = inputs[0]
        if not all(x.on_grid for x in inputs) or (self.keeps_grid and not all(x.holds_steps for x in inputs)):
            return first.like(real(*(x.dequantize() for x in inputs)))
        with torch.no_grad():
            integers = steps(Output(first.scale, first.dtype), *(x.as_steps() for x in inputs))
        values = real(*(x.dequantize() for x in inputs)) if _needs_grad(inputs) else None
        return self.from_steps(values, integers)

    def from_steps(self, real: Tensor | None, steps: QTensor) -> QTensor:
        """Make the output of integers, and of the real values that carry the gradient; without one, the integers."""
        fake_quant = self.activation_post_process
        if fake_quant is None or real is None or not real.requires_grad:
            return self.replaced(real, steps)
        integers, dtype = plain(steps), _value_type(steps.scale)
        value = fake_quant.straight_through(real.to(dtype), integers.to(dtype))
        return QTensor(value, steps.scale, None, steps.dtype, steps.per_channel_axis, steps=integers)

    def replaced(self, real: Tensor | None, steps: QTensor) -> QTensor:
        """Make the output of integers; the gradient is that of the real values, everywhere."""
        if real is None or not real.requires_grad:
            return steps
        value = steps.dequantize()
        value = with_value(real.to(value.dtype), value)
        return QTensor(value, steps.scale, None, steps.dtype, steps.per_channel_axis, steps=plain(steps))

    def quantize_output(self, real: Tensor) -> QTensor:
        """Observe and, if switched on, round real values by the ordinary rule: for inputs that are not quantized."""
        fake_quant = self.activation_post_process
        assert fake_quant is not None
        real = real.to(_value_type(fake_quant.scale))
        needs_grad = _needs_grad((real, *fake_quant.parameters()))
        if fake_quantizes(fake_quant) and not observes(fake_quant) and not needs_grad:
            out = self.output()
            steps = fake_quant.quantize(real).to(getattr(torch, f"int{out.dtype.bits}"))
            return QTensor(steps, out.scale, None, out.dtype)
        value = fake_quant(real)
        out = self.output()
        return QTensor(value, out.scale, None, out.dtype, on_grid=fake_quantizes(fake_quant))

    def to_quantized(self) -> nn.Module:
        """Return the converted module."""
        return self.quantized(self)

    def _get_name(self) -> str:
        return type(self).__name__.removeprefix("QAT")


def _value_type(scale: Tensor) -> torch.dtype:
    """Return the type of real values ``integers * scale``, whatever the type of the parameters that led to them."""
    return torch.promote_types(torch.float32, scale.dtype)


def _needs_grad(tensors: tuple[Any, ...]) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)

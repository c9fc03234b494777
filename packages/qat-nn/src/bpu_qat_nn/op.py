"""What an operator is here: its meaning on real values, its meaning on integers, and the two modules made of them.

An operator states two things once. ``real`` is the differentiable function of real values. ``steps`` is the same on
integers: which kernels run, with which parameters, for given scales. The QAT module uses ``steps`` for its values and
``real`` for its gradient, the converted module uses ``steps`` alone, and lowering records the kernels that ``steps``
invokes; so the three cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bpu_kernels.dtypes import QuantDType, qint8
from bpu_kernels.march import MarchRow
from bpu_qconfig import FakeQuantize, QConfig

from .derived import Derived
from .errors import QTensorError
from .qtensor import QTensor, plain

__all__ = ["OpRow", "Operator", "Output", "QATModule", "QuantizedModule", "with_value"]


@dataclass(frozen=True)
class Output:
    """Scale and type that an operator's output shall have."""

    scale: Tensor
    dtype: QuantDType


class Operator:
    """What QAT and converted module share; subclasses are combined with ``QATModule`` and ``QuantizedModule``."""

    config: ClassVar[tuple[str, ...]] = ()
    """Attributes taken over from the float module."""
    own_scale: ClassVar[bool] = True
    """Whether the output has a scale of its own; otherwise it has the first input's."""
    keeps_grid: ClassVar[bool] = False
    """Whether ``real`` maps multiples of the scale to multiples of the scale, exactly; only without own scale."""

    row: MarchRow
    derived: Derived

    def configure(self, source: nn.Module) -> None:
        """Take over what the operator needs of the float or QAT module."""
        for name in self.config:
            setattr(self, name, getattr(source, name))

    def real(self, *inputs: Any) -> Tensor:
        """Compute on real values, differentiably."""
        raise NotImplementedError

    def steps(self, out: Output, *inputs: Any) -> QTensor:
        """Compute on integers by invoking kernels (``inputs[0].invoke``)."""
        raise NotImplementedError

    @classmethod
    def limits(cls, module: nn.Module, row: MarchRow, dtype: QuantDType) -> list[str]:
        """Return what the march refuses of a float module; ``dtype`` is the output's type."""
        return []


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


def fake_quantizes(fake_quant: FakeQuantize | None) -> bool:
    """Whether a fake quantizer exists and is switched on."""
    return fake_quant is not None and bool(fake_quant.fake_quant_enabled[0])


def observes(fake_quant: FakeQuantize | None) -> bool:
    """Whether a fake quantizer exists and updates its scale."""
    return fake_quant is not None and bool(fake_quant.observer_enabled[0])


class QATModule(Operator, nn.Module):
    """An operator under quantization-aware training."""

    quantized: ClassVar[type[QuantizedModule]]
    """The converted form."""
    activation_post_process: FakeQuantize | None
    qconfig: QConfig | None
    path: str

    def __init__(self, source: nn.Module, qconfig: QConfig, row: MarchRow, path: str = "") -> None:
        nn.Module.__init__(self)
        self.row, self.path, self.derived = row, path, Derived(keeps=False)
        self.qconfig = qconfig
        self.activation_post_process = None
        if self.own_scale and qconfig.activation is not None:
            self.activation_post_process = qconfig.activation()
            self.activation_post_process.activation_post_process.path = f"{path}.activation_post_process"
        self.train(source.training)
        self.configure(source)

    def expect_quantized(self, inputs: tuple[Any, ...]) -> None:
        """Raise unless every input is a QTensor."""
        for index, x in enumerate(inputs):
            if not isinstance(x, QTensor):
                raise QTensorError(
                    f"{self.path or self._get_name()} expected a quantized tensor as input {index}, got "
                    f"{type(x).__name__}; put a QuantStub between the float value and this module"
                )

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
        self,
        real: Callable[..., Tensor],
        steps: Callable[..., QTensor],
        inputs: tuple[QTensor, ...],
        *,
        own_scale: bool | None = None,
    ) -> QTensor:
        """Combine the two meanings of an operator; see ``forward``.

        Args:
            real: takes the inputs' real values.
            steps: takes an Output and the inputs' integers.
            inputs: the quantized inputs.
            own_scale: whether the output has a scale of its own; the class's ``own_scale`` by default.
        """
        self.expect_quantized(inputs)
        on_grid = all(x.on_grid for x in inputs)
        if not (self.own_scale if own_scale is None else own_scale):
            return self._with_scale_of_input(real, steps, inputs, on_grid)
        fake_quant = self.activation_post_process
        if not on_grid or not fake_quantizes(fake_quant):
            return self.quantize_output(real(*(plain(x) for x in inputs)))
        assert fake_quant is not None
        needs_grad = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
        values = real(*(plain(x) for x in inputs)) if needs_grad or observes(fake_quant) else None
        if values is not None:
            fake_quant.observe(values.detach())
        with torch.no_grad():
            integers = steps(self.output(), *(x.as_steps() for x in inputs))
        return self.from_steps(values, integers)

    def from_steps(self, real: Tensor | None, steps: QTensor) -> QTensor:
        """Make the output of integers, and of the real values that carry the gradient (None: no gradient)."""
        fake_quant = self.activation_post_process
        if fake_quant is None or real is None or not real.requires_grad:
            return self.replaced(real, steps)
        integers = plain(steps)
        value = fake_quant.straight_through(real, integers.to(real.dtype))
        return QTensor(value, steps.scale, None, steps.dtype, steps.per_channel_axis, steps=integers)

    def replaced(self, real: Tensor | None, steps: QTensor) -> QTensor:
        """Make the output of integers; the gradient is that of the real values, everywhere."""
        value = steps.dequantize()
        if real is not None and real.requires_grad:
            value = with_value(real, value.to(real.dtype))
        return QTensor(value, steps.scale, None, steps.dtype, steps.per_channel_axis, steps=plain(steps))

    def quantize_output(self, real: Tensor) -> QTensor:
        """Observe and, if switched on, round real values by the ordinary rule: for inputs that are not quantized."""
        fake_quant = self.activation_post_process
        if fake_quant is None:
            return QTensor(real, torch.ones(1, device=real.device), None, "qint32", on_grid=False)
        value = fake_quant(real)
        out = self.output()
        return QTensor(value, out.scale, None, out.dtype, on_grid=fake_quantizes(fake_quant))

    def _with_scale_of_input(
        self, real: Callable[..., Tensor], steps: Callable[..., QTensor], inputs: tuple[QTensor, ...], on_grid: bool
    ) -> QTensor:
        first = inputs[0]
        if self.keeps_grid or not on_grid:
            return first.like(real(*(plain(x) for x in inputs)))
        with torch.no_grad():
            integers = steps(Output(first.scale, first.dtype), *(x.as_steps() for x in inputs))
        needs_grad = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
        return self.from_steps(real(*(plain(x) for x in inputs)) if needs_grad else None, integers)

    def to_quantized(self) -> nn.Module:
        """Return the converted module."""
        return self.quantized(self)

    def _get_name(self) -> str:
        return type(self).__name__.removeprefix("QAT")


class QuantizedModule(Operator, nn.Module):
    """An operator on integers.

    Buffers: ``scale`` (float32, [1]) of the output where the operator has one of its own.
    """

    scale: Tensor
    dtype: QuantDType

    def __init__(self, source: QATModule) -> None:
        nn.Module.__init__(self)
        self.row, self.derived = source.row, Derived()
        fake_quant = source.activation_post_process
        self.dtype = qint8 if fake_quant is None else fake_quant.dtype
        if fake_quant is not None:
            self.register_buffer("scale", fake_quant.scale.detach().clone().reshape(-1))
        self.eval()
        self.configure(source)

    def forward(self, *inputs: QTensor) -> QTensor:
        """Compute the output's integers from the inputs'."""
        first = inputs[0]
        out = Output(self.scale, self.dtype) if self.own_scale else Output(first.scale, first.dtype)
        return self.steps(out, *inputs)

    def extra_repr(self) -> str:
        """Scale and type of the output."""
        return f"scale={self.scale.tolist()}, dtype={self.dtype}" if "scale" in self._buffers else ""

    def _get_name(self) -> str:
        return type(self).__name__.removeprefix("Quantized")


@dataclass(frozen=True, kw_only=True)
class OpRow:
    """One row of OPS: the float modules that an operator accepts, and its QAT form."""

    name: str
    floats: tuple[type[nn.Module], ...]
    qat: type[QATModule]
    kernels: tuple[str, ...]
    """Names of the kernels that it may lower to."""
    note: str = ""
    """What a user should know, for docs/operators.md."""

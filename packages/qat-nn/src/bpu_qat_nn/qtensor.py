"""QTensor: a tensor that knows its scale, made of real values or of integers.

A QTensor's payload is either floating point, holding real values that (except in CALIBRATION state) lie on the grid
``integer * scale``, or int8, int16, int32, holding the integers themselves. Converted models pass integers on, and so
do QAT models where no gradient is recorded and nothing is observed: real values are made when somebody asks for them.
Functions that only move elements work on it; every other function of torch is refused with a message that says what to
do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bpu_kernels.dtypes import QuantDType, quant_dtype
from bpu_kernels.kernel import Kernel
from bpu_kernels.march import MarchRow
from bpu_kernels.torch_ops import Tape, open_tape, run

from .errors import ArgumentError, NotOnGridError, QTensorError
from .moves import QUERIES, SEQUENCES, Movement, moved_axis, movement

__all__ = ["QTensor", "plain"]


def plain(value: Tensor) -> Tensor:
    """Return the payload as an ordinary tensor, connected to the same gradient."""
    return value.as_subclass(Tensor)


class QTensor(Tensor):
    """A tensor with scale; see the module's docstring.

    Args:
        data: float32 (or float64) real values, or int8, int16, int32 steps.
        scale: positive, float32, of shape [1], or [C] along ``per_channel_axis``.
        zero_point: always 0 on the BPU; given values must be 0.
        dtype: "qint8", "qint16" or "qint32"; also torch's types of the same names.
        per_channel_axis: axis of a per-channel scale, -1 for per tensor.
        on_grid: whether floating-point values are known to be whole multiples of the scale.
        steps: the integers of floating-point data, where they are known.

    Raises:
        ArgumentError: a zero point other than 0.
    """

    _scale: Tensor
    _quant_dtype: QuantDType
    _axis: int
    _on_grid: bool
    _steps: Tensor | None

    def __new__(
        cls,
        data: Tensor,
        scale: Tensor | float,
        zero_point: Tensor | int | None = None,
        dtype: object = "qint8",
        per_channel_axis: int = -1,
        *,
        on_grid: bool = True,
        steps: Tensor | None = None,
    ) -> QTensor:
        """Attach scale and type to a tensor; gradients flow through."""
        if zero_point is not None and torch.as_tensor(zero_point).any():
            raise ArgumentError(f"expected zero_point 0 or None, got {zero_point}: the BPU quantizes symmetrically")
        self = plain(data).as_subclass(cls)
        self._scale = scale if isinstance(scale, Tensor) else torch.tensor([float(scale)], device=data.device)
        self._quant_dtype = quant_dtype(dtype)
        self._axis = per_channel_axis
        self._on_grid = on_grid
        self._steps = steps
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: ``__new__`` has done it."""

    @property
    def shape(self) -> torch.Size:  # type: ignore[override]
        """Lengths of the axes."""
        with torch._C.DisableTorchFunctionSubclass():  # asked by every operator, so not by way of __torch_function__
            return super().shape

    @property
    def scale(self) -> Tensor:
        """Scale, float32, [1] or [C]."""
        return self._scale

    @property
    def zero_point(self) -> Tensor:
        """Zeros of the scale's shape: the BPU quantizes symmetrically."""
        return torch.zeros_like(self._scale, dtype=torch.int64)

    @property
    def dtype(self) -> QuantDType:  # type: ignore[override]
        """The integer type of the steps."""
        return self._quant_dtype

    @property
    def per_channel_axis(self) -> int:
        """Axis of a per-channel scale, -1 for per tensor."""
        return self._axis

    @property
    def on_grid(self) -> bool:
        """Whether every value is a whole multiple of the scale."""
        return self._on_grid

    @property
    def holds_steps(self) -> bool:
        """Whether the payload is integers rather than real values."""
        return not plain(self).is_floating_point()

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        """The payload, detached, as an ordinary tensor."""
        return plain(self).detach()

    def q_scale(self) -> float:
        """The scale of a per-tensor quantized tensor."""
        return float(self._scale)

    def q_zero_point(self) -> int:
        """Always 0."""
        return 0

    def q_per_channel_axis(self) -> int:
        """Axis of a per-channel scale, -1 for per tensor."""
        return self._axis

    def scale_along(self) -> Tensor:
        """Return the scale shaped to broadcast against the payload."""
        if self._axis < 0:
            return self._scale
        shape = [1] * plain(self).dim()
        shape[self._axis] = -1
        return self._scale.reshape(shape)

    def int_repr(self) -> Tensor:
        """Return the steps, int8, int16 or int32, as an ordinary tensor.

        Raises:
            NotOnGridError: the values have not been quantized (CALIBRATION state).
        """
        if self.holds_steps:
            return plain(self)
        if not self._on_grid:
            raise NotOnGridError(
                "expected quantized values, got real ones: the model is calibrating, or fake quantization is switched "
                "off before this place; set_fake_quantize(model, FakeQuantState.VALIDATION) gives integers"
            )
        if self._steps is None:
            rounded = (plain(self).detach() / self.scale_along()).round_()
            self._steps = rounded.to(getattr(torch, f"int{self._quant_dtype.bits}"))
        return self._steps

    def as_values(self) -> QTensor:
        """Return the same quantized tensor with real values as payload."""
        if not self.holds_steps:
            return self
        return QTensor(self.dequantize(), self._scale, None, self._quant_dtype, self._axis, steps=plain(self))

    def as_steps(self) -> QTensor:
        """Return the same quantized tensor with the integers as payload."""
        return self if self.holds_steps else QTensor(self.int_repr(), self._scale, None, self._quant_dtype, self._axis)

    def dequantize(self) -> Tensor:
        """Return the real values, float32, as an ordinary tensor."""
        if not self.holds_steps:
            return plain(self)
        return plain(self).to(torch.float32) * self.scale_along()

    @staticmethod
    def invoke(
        kernel: Kernel,
        row: MarchRow,
        *inputs: Any,
        scale: Tensor,
        dtype: QuantDType,
        axis: int = -1,
        narrow: bool = False,
    ) -> QTensor:
        """Run an integer operator on tensors that hold steps; lowering has a method of this name that records it."""
        recording: Any = next((x for x in inputs if not isinstance(x, QTensor)), None)
        if recording is not None:  # then this tensor is a constant
            recorded: QTensor = recording.invoke(kernel, row, *inputs, scale=scale, dtype=dtype, axis=axis)
            return recorded
        y = run(kernel, row, *(plain(x) for x in inputs), narrow=narrow)
        return QTensor(y, scale, None, dtype, axis)

    def like(self, data: Tensor, axis: int | None = None, steps: Tensor | None = None) -> QTensor:
        """Return a tensor of the same scale and type with other payload."""
        scale, axis = self._scale.to(data.device), self._axis if axis is None else axis
        return QTensor(data, scale, None, self._quant_dtype, axis, on_grid=self._on_grid, steps=steps)

    def with_scale(self, scale: Tensor) -> QTensor:
        """Return the same payload of steps under another scale."""
        return QTensor(plain(self), scale, None, self._quant_dtype, self._axis)

    def __repr__(self, **kwargs: Any) -> str:  # type: ignore[override]
        """Payload, scale and type."""
        return f"QTensor({plain(self)!r}, scale={self._scale!r}, dtype={self._quant_dtype})"

    def __deepcopy__(self, memo: dict[int, Any]) -> QTensor:
        """Copy payload and scale."""
        rebuild, arguments = self.__reduce_ex__(2)
        copied: QTensor = rebuild(*(value.clone() if isinstance(value, Tensor) else value for value in arguments))
        memo[id(self)] = copied
        return copied

    def __reduce_ex__(self, protocol: Any) -> tuple[Callable[..., QTensor], tuple[Any, ...]]:
        """Pickle payload, scale and type; gradients are left behind."""
        dtype = str(self._quant_dtype)
        return _rebuild, (self.data, self._scale.detach(), dtype, self._axis, self._on_grid, self._steps)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Let movements and queries through; refuse the rest."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        if name in ("__get__", "__set__", "__delete__") or name in QUERIES:
            return _asked(func, name, args, kwargs)
        if name in SEQUENCES:
            return SEQUENCES[name](*args, **kwargs)
        moves = movement(func, args, kwargs)
        if moves is None or not isinstance(moves.source, QTensor):
            raise QTensorError(_refusal(name))
        return _moved(moves)


def _rebuild(data: Tensor, scale: Tensor, dtype: str, axis: int, on_grid: bool, steps: Tensor | None) -> QTensor:
    return QTensor(data, scale, None, dtype, axis, on_grid=on_grid, steps=steps)


def _asked(func: Callable[..., Any], name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Answer a question about the tensor; attributes that are views of its values, such as ``x.T``, are refused."""
    with torch._C.DisableTorchFunctionSubclass():
        answer = func(*args, **kwargs)
    attribute = getattr(getattr(func, "__self__", None), "__name__", name)
    if name == "__get__" and isinstance(answer, Tensor) and attribute not in ("grad", "_base"):
        raise QTensorError(_refusal(f"the attribute {attribute}"))
    return answer


def _moved(moves: Movement) -> Any:
    """Move the payload, and the steps with it where they are known; the scale goes along."""
    source: QTensor = moves.source
    tape = open_tape()
    with torch._C.DisableTorchFunctionSubclass():
        moved = moves.apply(plain(source))
        if tape is not None:
            _note(moves, moved, tape)
        steps = None if source._steps is None else moves.apply(source._steps)
        axis = moved_axis(moves) if source._axis >= 0 else -1
    if isinstance(moved, (tuple, list)):
        parts = [None] * len(moved) if steps is None else steps
        return tuple(source.like(part, axis, part_steps) for part, part_steps in zip(moved, parts, strict=True))
    return source.like(moved, axis, steps)


def _note(moves: Movement, moved: Any, tape: Tape) -> None:
    """Tell a tape what torch has copied; a movement that depends on other integers is none for it."""
    tape.is_whole &= not moves.depends
    if isinstance(moved, Tensor):
        tape.copied(plain(moves.source), moved, moves.apply if moves.kind in ("slice", "copies") else None)


def _refusal(name: str) -> str:
    return (
        f"{name} is not available on a quantized tensor. In a model for prepare_qat_fx use the operator itself "
        "(x + y, torch.cat, a torch.nn module), which becomes a quantized module; use DeQuantStub where real values "
        "are needed. int_repr() and dequantize() give ordinary tensors"
    )

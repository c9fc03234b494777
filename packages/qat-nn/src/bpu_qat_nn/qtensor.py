"""QTensor: a tensor that knows its scale; real values in QAT models, integers in converted ones.

A QTensor's payload is either floating point, holding real values that (in QAT and VALIDATION state) lie on the grid
``integer * scale``, or int8, int16, int32, holding the integers themselves. Functions that only move elements work on
it; every other function of torch is refused with a message that says what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bpu_kernels.dtypes import QuantDType, qint32, quant_dtype
from bpu_kernels.kernel import Kernel
from bpu_kernels.march import MarchRow
from bpu_kernels.torch_ops import run

from .errors import NotOnGridError, QTensorError

__all__ = ["MOVES", "MOVING_MODULES", "QTensor", "moved_axis", "plain"]

MOVES: dict[str, str] = {
    "reshape": "reshape",
    "view": "reshape",
    "flatten": "reshape",
    "unflatten": "reshape",
    "squeeze": "reshape",
    "unsqueeze": "reshape",
    "permute": "permute",
    "transpose": "permute",
    "swapaxes": "permute",
    "swapdims": "permute",
    "movedim": "permute",
    "moveaxis": "permute",
    "__getitem__": "slice",
    "getitem": "slice",
    "narrow": "slice",
    "select": "slice",
    "chunk": "slice",
    "split": "slice",
    "unbind": "slice",
    "contiguous": "same",
    "clone": "same",
    "detach": "same",
    "alias": "same",
    "to": "same",
    "cpu": "same",
    "cuda": "same",
}
"""Functions and methods that only move elements -> the kind of movement; scale and type pass through them."""

MOVING_MODULES = (nn.Identity, nn.Flatten, nn.Unflatten)
"""Modules that only move elements, and so take quantized tensors as they are."""

_QUERIES = frozenset(
    [
        *(
            "__format__",
            "__hash__",
            "__len__",
            "_is_view",
            "as_subclass",
            "backward",
            "data_ptr",
            "dim",
            "element_size",
        ),
        *("get_device", "has_names", "is_complex", "is_contiguous", "is_floating_point", "is_inference", "ndimension"),
        *("nelement", "numel", "register_hook", "requires_grad_", "retain_grad", "size", "storage_offset", "stride"),
        "untyped_storage",
    ]
)
"""Methods that ask about the tensor or its gradient and return no values of it."""


def plain(value: Tensor) -> Tensor:
    """Return the payload as an ordinary tensor, connected to the same gradient."""
    return value.as_subclass(Tensor)


class QTensor(Tensor):
    """A tensor with scale; see the module's docstring.

    Args:
        data: float32 real values, or int8, int16, int32 steps.
        scale: positive, float32, of shape [1], or [C] along ``per_channel_axis``.
        zero_point: always 0 on the BPU; given values must be 0.
        dtype: "qint8", "qint16" or "qint32"; also torch's types of the same names.
        per_channel_axis: axis of a per-channel scale, -1 for per tensor.
        on_grid: whether floating-point values are known to be whole multiples of the scale.
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
        zero_point: object = None,
        dtype: object = "qint8",
        per_channel_axis: int = -1,
        *,
        on_grid: bool = True,
        steps: Tensor | None = None,
    ) -> QTensor:
        """Attach scale and type to a tensor; gradients flow through."""
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
        """Whether the payload is integers (a converted model) rather than real values (a QAT model)."""
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
        *inputs: QTensor,
        scale: Tensor,
        dtype: QuantDType,
        axis: int = -1,
        narrow: bool = False,
    ) -> QTensor:
        """Run an integer operator on tensors that hold steps; lowering has a method of this name that records it."""
        y = run(kernel, row, *(plain(x) for x in inputs), narrow=narrow)
        return QTensor(y, scale, None, dtype, axis)

    def like(self, data: Tensor, axis: int | None = None) -> QTensor:
        """Return a tensor of the same scale and type with other payload."""
        return QTensor(
            data, self._scale, None, self._quant_dtype, self._axis if axis is None else axis, on_grid=self._on_grid
        )

    def with_scale(self, scale: Tensor) -> QTensor:
        """Return the same payload of steps under another scale."""
        return QTensor(plain(self), scale, None, self._quant_dtype, self._axis)

    def __repr__(self, **kwargs: Any) -> str:  # type: ignore[override]
        """Payload, scale and type."""
        return f"QTensor({plain(self)!r}, scale={self._scale!r}, dtype={self._quant_dtype})"

    def __deepcopy__(self, memo: dict[int, Any]) -> QTensor:
        """Copy payload and scale."""
        copied = self.like(plain(self).detach().clone())
        copied._scale = self._scale.detach().clone()
        memo[id(self)] = copied
        return copied

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
        if name in ("__get__", "__set__", "__delete__") or name in _QUERIES:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        kind = MOVES.get(name)
        if kind is None:
            raise QTensorError(_refusal(name))
        source: QTensor = args[0]
        with torch._C.DisableTorchFunctionSubclass():
            moved = func(plain(source), *args[1:], **kwargs)
        axis = moved_axis(source, func, args, kwargs) if source._axis >= 0 else -1
        if isinstance(moved, (tuple, list)):
            return type(moved)(source.like(part, axis) for part in moved)
        return source.like(moved, axis)


def _refusal(name: str) -> str:
    return (
        f"{name} is not available on a quantized tensor. In a model for prepare_qat_fx use the operator itself "
        "(x + y, torch.cat, a torch.nn module), which becomes a quantized module; use DeQuantStub where real values "
        "are needed. int_repr() and dequantize() give ordinary tensors"
    )


def moved_axis(source: QTensor, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Return where the channel axis of a per-channel scale goes.

    Raises:
        QTensorError: the axis does not survive the movement whole.
    """
    channels = source._scale.numel()
    shape = [1] * plain(source).dim()
    shape[source._axis] = channels
    index = torch.arange(channels).reshape(shape).expand(plain(source).shape)
    moved = func(index, *args[1:], **kwargs)
    first = moved[0] if isinstance(moved, (tuple, list)) else moved
    for axis in range(first.dim()):
        if first.shape[axis] == channels:
            along = [1] * first.dim()
            along[axis] = channels
            if torch.equal(first, torch.arange(channels).reshape(along).expand(first.shape)):
                return axis
    raise QTensorError(
        f"{getattr(func, '__name__', func)} splits the channels of a tensor with one scale per channel (a "
        f"high-precision {qint32} output); put the DeQuantStub before it"
    )

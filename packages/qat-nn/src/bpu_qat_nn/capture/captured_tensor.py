"""How torch captures a converted model: what stands for a quantized tensor while it does.

``torch.jit.trace`` and ``torch.export`` follow ordinary tensors through a model, and cannot follow a subclass that
carries a scale beside its elements. While they are at work, QuantStubs therefore make CapturedTensors, which are no
tensors but hold one, and whose operators are calls of ``torch.ops.bpu``. What is derived from scales and weights is
computed for real, outside of the capture, and enters it as constants.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import register_pytree_node

from bpu_kernels.dtypes import QuantDType
from bpu_kernels.fields import map_arrays
from bpu_kernels.kernel import Kernel
from bpu_kernels.march import MarchRow
from bpu_kernels.ops.constant import Constant
from bpu_kernels.ops.elementwise import Reinterpret
from bpu_kernels.torch_ops import library

from ..errors import QTensorError
from ..moves import MOVES, moved_axis, movement

__all__ = ["CapturedTensor", "capture_scope", "capturing", "exporting", "in_capture_scope", "uncaptured"]

_depth = 0


@contextmanager
def capture_scope() -> Iterator[None]:
    """Make QuantStubs give CapturedTensors, whether or not torch says that it captures."""
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1


def in_capture_scope() -> bool:
    """Whether a capture_scope is open."""
    return _depth > 0


exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: False)
"""Whether ``torch.export`` is at work; torch 2.6 does not tell."""


def capturing() -> bool:
    """Whether a model that runs now is being captured."""
    return _depth > 0 or torch._C._get_tracing_state() is not None or exporting()


@contextmanager
def uncaptured() -> Iterator[None]:
    """Compute for real what happens inside; a capture that is under way does not see it."""
    if not capturing():
        yield
        return
    with _untraced(), _disable_current_modes():
        yield


@contextmanager
def _untraced() -> Iterator[None]:
    """Keep ``torch.jit.trace`` from seeing what happens inside."""
    state: Any = torch._C._get_tracing_state()
    if state is None:
        yield
        return
    set_state: Any = torch._C._set_tracing_state  # type: ignore[attr-defined]
    set_state(None)
    try:
        yield
    finally:
        set_state(state)


@dataclass(frozen=True, eq=False)
class CapturedTensor:
    """A quantized tensor of a model that is being captured; used as a QTensor that holds steps."""

    steps: Tensor
    """int8, int16 or int32."""
    scale: Tensor
    dtype: QuantDType
    march: str
    per_channel_axis: int = -1

    @property
    def holds_steps(self) -> bool:
        """It stands for integers."""
        return True

    @property
    def shape(self) -> torch.Size:
        """Lengths, as numbers that the capture does not follow."""
        with uncaptured():
            return self.steps.shape

    @property
    def device(self) -> torch.device:
        """Where the steps are."""
        return self.steps.device

    def size(self, dim: int | None = None) -> Any:
        """Shape, or one length of it."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def numel(self) -> int:
        """Number of elements."""
        return self.shape.numel()

    def int_repr(self) -> Tensor:
        """The steps."""
        return self.steps

    def with_scale(self, scale: Tensor) -> CapturedTensor:
        """Return the same integers with another meaning, by an operator that names it."""
        return replace(self, steps=library.call(Reinterpret(), self.march, self.steps, scale=scale), scale=scale)

    def dequantize(self) -> Tensor:
        """Return the real values."""
        result: Tensor = torch.ops.bpu.dequantize(self.steps, self.scale, self.per_channel_axis)
        return result

    @classmethod
    def quantized(cls, x: Tensor, scale: Tensor, dtype: QuantDType, march: str) -> CapturedTensor:
        """Quantize real numbers, for a march."""
        return cls(torch.ops.bpu.quantize(x, scale, str(dtype), march), scale, dtype, march)

    @staticmethod
    def invoke(
        kernel: Kernel,
        row: MarchRow,
        *inputs: Any,
        scale: Tensor,
        dtype: QuantDType,
        axis: int = -1,
        narrow: bool = False,
    ) -> CapturedTensor:
        """Call an operator of the library; as ``QTensor.invoke``."""
        march = str(row.march)
        steps = (x.steps if isinstance(x, CapturedTensor) else _constant(x, march) for x in inputs)
        with uncaptured():
            narrow = bool(narrow)  # numbers of elements are tensors while torch traces
            kernel = _dense(kernel)
        y = library.call(kernel, march, *steps, scale=scale, axis=axis, narrow=narrow)
        return CapturedTensor(y, scale, dtype, march, axis)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Move; refuse the rest."""
        moves = movement(func, args, kwargs or {})
        if moves is None or not isinstance(moves.source, CapturedTensor):
            raise QTensorError(
                f"{getattr(func, '__name__', func)} works on a quantized tensor, but has no integer form"
            )
        source = moves.source
        if moves.name == "float":  # a mask is of real numbers already; its integers must not become any
            return source
        axis = -1
        if source.per_channel_axis >= 0:
            with uncaptured():
                axis = moved_axis(moves)
        moved = moves.apply(source.steps)
        if isinstance(moved, (tuple, list)):
            return tuple(replace(source, steps=part, per_channel_axis=axis) for part in moved)
        return replace(source, steps=moved, per_channel_axis=axis)

    def __getitem__(self, index: Any) -> Any:
        return self.__torch_function__(operator.getitem, (), (self, index))

    def __getattr__(self, name: str) -> Any:
        if name not in MOVES:
            raise AttributeError(f"{name} is not available on a quantized tensor that is being captured")
        func = getattr(torch.Tensor, name)
        return lambda *args, **kwargs: self.__torch_function__(func, (), (self, *args), kwargs)


_DENSE: weakref.WeakKeyDictionary[Kernel, Kernel] = weakref.WeakKeyDictionary()
"""Kernel -> the same with arrays that are no views: torch.export stores whole tensors, and each once."""


def _dense(kernel: Kernel) -> Kernel:
    if kernel not in _DENSE:
        _DENSE[kernel] = map_arrays(kernel, lambda path, tensor: tensor if _is_whole(tensor) else _copied(tensor))
    return _DENSE[kernel]


def _is_whole(tensor: Tensor) -> bool:
    return tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def _copied(tensor: Tensor) -> Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)


def _constant(tensor: Any, march: str) -> Tensor:
    """Return the steps of a QTensor that does not depend on the inputs, as an operator that names its scale."""
    with uncaptured():
        steps = tensor.int_repr()
        kernel = Constant(values=steps.reshape(-1), shape=tuple(steps.shape), dtype=tensor.dtype)
    return library.call(kernel, march, scale=tensor.scale)


def _register() -> None:
    """Let torch.export see the steps in the result of a model that ends without a DeQuantStub."""
    register_pytree_node(
        CapturedTensor,
        lambda captured: ([captured.steps], None),
        lambda steps, _: next(iter(steps)),
        serialized_type_name="bpu_qat_nn.CapturedTensor",
    )


_register()

"""SymbolicTensor: what stands for a quantized tensor while a converted model is run to record its Program.

Converted modules compute through ``invoke`` and torch's moving functions alone. On a QTensor these compute integers; on
a SymbolicTensor they append nodes to a Program. So the recorded kernels are the ones that run.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from bpu_kernels.dtypes import QuantDType
from bpu_kernels.kernel import Kernel, TensorSpec
from bpu_kernels.march import MarchRow
from bpu_kernels.ops.elementwise import Reinterpret
from bpu_qat_nn import MOVES, QTensor
from bpu_qat_nn.moves import SEQUENCES, movement

from ..errors import LoweringError, StandInError
from .arrange import arranged, over_whole_map
from .layout import channels_last, identity
from .recorder import Recorder
from .stored import StoredTensor

__all__ = ["SymbolicReal", "SymbolicTensor"]

_OF_DEVICE = frozenset({"device", "get_device", "is_cuda", "is_cpu"})
"""What may be asked about where a tensor lies: where its scale lies."""

_OF_TENSOR = frozenset(
    {
        *{"ndim", "ndimension", "nelement", "itemsize", "element_size", "nbytes", "layout"},
        *{"is_complex", "is_floating_point", "is_sparse", "is_quantized", "is_leaf", "requires_grad", "grad"},
    }
)
"""What may be asked about a tensor besides; not how it lies in memory, which differs between a model's forms."""


class SymbolicReal:
    """A real tensor: an input that no QuantStub has seen yet, or an output behind a DeQuantStub."""

    def __init__(
        self, recorder: Recorder, name: str, shape: tuple[int, ...], source: SymbolicTensor | None = None
    ) -> None:
        self.recorder, self.name, self.shape, self.source = recorder, name, shape, source
        self._quantized: SymbolicTensor | None = None

    def size(self, dim: int | None = None) -> Any:
        """Shape, or one length of it."""
        return torch.Size(self.shape) if dim is None else self.shape[dim]

    def dim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def quantize_input(self, scale: Tensor, dtype: QuantDType) -> SymbolicTensor:
        """Declare the Program's input that a QuantStub makes of this."""
        if self.source is not None:
            raise LoweringError("a QuantStub behind a DeQuantStub: split_segments(quantized, inputs) makes the parts")
        if self._quantized is None:
            order = channels_last(len(self.shape))
            spec = TensorSpec(tuple(self.shape[axis] for axis in order), dtype)
            value = self.recorder.input(self.name, spec, scale)
            self._quantized = SymbolicTensor(self.recorder, value, self.shape, order, scale, dtype)
        elif self._quantized.dtype is not dtype or not torch.equal(self._quantized.scale, scale):
            raise LoweringError(
                f"input {self.name!r} goes through QuantStubs of different scale or type; give each its own input"
            )
        return self._quantized

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Move what is behind a DeQuantStub; refuse to compute on real values."""
        moves = movement(func, args, kwargs or {})
        if moves is not None and isinstance(moves.source, SymbolicReal) and moves.source.source is not None:
            moved = moves.source.source.moved(moves)
            return tuple(x.dequantize() for x in moved) if isinstance(moved, tuple) else moved.dequantize()
        raise LoweringError(
            f"{getattr(func, '__name__', func)} works on a real tensor, which a Program does not hold: quantize inputs "
            "first, and keep what follows the DeQuantStubs outside the model that is lowered"
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "invoke":
            raise AttributeError(name)
        func = getattr(torch.Tensor, name, name)
        return lambda *args, **kwargs: self.__torch_function__(func, (), (self, *args), kwargs)

    def __getitem__(self, index: Any) -> Any:
        return self.__torch_function__(operator.getitem, (), (self, index))


@dataclass(frozen=True, eq=False)
class SymbolicTensor(StoredTensor):
    """A value of the Program that is being recorded, in the place of the tensor of torch that it stands for."""

    @property
    def holds_steps(self) -> bool:
        """It stands for integers."""
        return True

    @property
    def row(self) -> MarchRow:
        """What the march of the Program can do."""
        return self.recorder.row

    @property
    def transposes(self) -> bool:
        """Whether the march can permute axes."""
        return "transpose" not in self.row.refused_kernels

    def size(self, dim: int | None = None) -> Any:
        """Shape, or one length of it."""
        return torch.Size(self.shape) if dim is None else self.shape[dim]

    def dim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    def with_scale(self, scale: Tensor) -> SymbolicTensor:
        """Return the same integers with another meaning."""
        return replace(self, value=self.recorder.add(Reinterpret(), self.value, scale=scale), scale=scale)

    def dequantize(self) -> SymbolicReal:
        """Return what stands for the real values."""
        return SymbolicReal(self.recorder, self.value.name, self.shape, self)

    @classmethod
    def constant(cls, recorder: Recorder, tensor: QTensor) -> SymbolicTensor:
        """Return what stands for a quantized tensor that is known already."""
        integers = tensor.int_repr()
        order = channels_last(integers.dim())
        value = recorder.constant(integers.permute(order), tensor.dtype, tensor.scale)
        return cls(recorder, value, tuple(integers.shape), order, tensor.scale, tensor.dtype)

    @staticmethod
    def invoke(
        kernel: Kernel,
        row: MarchRow,
        *inputs: Any,
        scale: Tensor,
        dtype: QuantDType,
        axis: int = -1,
        narrow: bool = False,
    ) -> SymbolicTensor:
        """Record an operator; as ``QTensor.invoke``. A QTensor among the inputs is a constant."""
        recorder = next(x.recorder for x in inputs if isinstance(x, SymbolicTensor))
        inputs = tuple(x if isinstance(x, SymbolicTensor) else SymbolicTensor.constant(recorder, x) for x in inputs)
        whole = None if row.moves_freely else over_whole_map(kernel, inputs)
        if whole is not None:
            convolution, maps, whole_shape = whole
            y = SymbolicTensor.invoke(convolution, row, *maps, scale=scale, dtype=dtype, axis=axis)
            return y.with_shape(whole_shape)
        kernel, prepared = arranged(kernel, inputs)
        first = prepared[0]
        value = first.recorder.add(kernel, *(x.value for x in prepared), scale=scale)
        order = first.order if len(first.order) == len(value.spec.shape) else identity(len(value.spec.shape))
        lengths = dict(zip(order, value.spec.shape, strict=True))
        shape = tuple(lengths[logical] for logical in range(len(order)))
        return SymbolicTensor(first.recorder, value, shape, order, scale, dtype, axis)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Move; refuse the rest."""
        sequence = SEQUENCES.get(getattr(func, "__name__", ""))
        if sequence is not None:
            return sequence(*args, **(kwargs or {}))
        moves = movement(func, args, kwargs or {})
        if moves is None or not isinstance(moves.source, SymbolicTensor):
            name = getattr(func, "__name__", str(func))
            raise LoweringError(f"{name} works on a quantized tensor, but has no integer form")
        return moves.source.moved(moves)

    def __getitem__(self, index: Any) -> Any:
        return self.__torch_function__(operator.getitem, (), (self, index))

    def __len__(self) -> int:
        return self.shape[0]

    def __getattr__(self, name: str) -> Any:
        if name in MOVES:
            func = getattr(torch.Tensor, name)
            return lambda *args, **kwargs: self.__torch_function__(func, (), (self, *args), kwargs)
        if name in _OF_DEVICE:
            return getattr(self.scale, name)
        if name in _OF_TENSOR:
            return getattr(torch.empty(self.shape, dtype=getattr(torch, f"int{self.dtype.bits}"), device="meta"), name)
        raise StandInError(
            f"{name} of a quantized tensor is not known while the model is lowered: what a forward does may depend on "
            "shapes and the device alone. Take it out of the forward, or pass example_inputs to prepare_qat_fx"
        )

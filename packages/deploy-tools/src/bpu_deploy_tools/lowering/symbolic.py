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
from bpu_kernels.ops.concat import Concat
from bpu_kernels.ops.elementwise import Reinterpret
from bpu_kernels.ops.layout import Slice
from bpu_qat_nn import MOVES, QTensor
from bpu_qat_nn.moves import SEQUENCES, Movement, moved_axis, movement

from ..errors import LoweringError, StandInError
from .arrange import arranged, over_whole_map
from .layout import (
    Order,
    Shuffle,
    Window,
    channels_last,
    identity,
    order_after_squeeze,
    permuted_axes,
    picked,
    runs,
    shape_after,
    windows,
)
from .recorder import Recorded, Recorder

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
class SymbolicTensor:
    """A value of the Program that is being recorded, seen as the torch tensor that it stands for."""

    recorder: Recorder
    value: Recorded
    shape: tuple[int, ...]
    order: Order
    scale: Tensor
    dtype: QuantDType
    per_channel_axis: int = -1
    """Axis of a scale per channel, which is the last one in memory; -1 for one scale."""
    shuffle: Shuffle | None = None

    @property
    def holds_steps(self) -> bool:
        """It stands for integers."""
        return True

    @property
    def transposes(self) -> bool:
        """Whether the march can permute axes."""
        return "transpose" not in self.recorder.row.refused_kernels

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

    def repeated(self, batch: int) -> SymbolicTensor:
        """Return a constant of batch 1 once for every element of a batch."""
        if self.value.kernel is None or self.shape[0] != 1 or batch == 1:
            return self
        integers = torch.from_numpy(self.value.kernel.run(self.recorder.row))
        value = self.recorder.constant(integers.repeat(batch, *[1] * (integers.dim() - 1)), self.dtype, self.scale)
        return replace(self, value=value, shape=(batch, *self.shape[1:]))

    # Computation

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
            y: Any = SymbolicTensor.invoke(convolution, row, *maps, scale=scale, dtype=dtype, axis=axis)
            reshaped: SymbolicTensor = y.reshape(whole_shape)
            return reshaped
        kernel, prepared = arranged(kernel, inputs)
        first = prepared[0]
        value = first.recorder.add(kernel, *(x.value for x in prepared), scale=scale)
        order = first.order if len(first.order) == len(value.spec.shape) else identity(len(value.spec.shape))
        lengths = dict(zip(order, value.spec.shape, strict=True))
        shape = tuple(lengths[logical] for logical in range(len(order)))
        return SymbolicTensor(first.recorder, value, shape, order, scale, dtype, axis)

    # Movement

    def to_order(self, order: Order) -> SymbolicTensor:
        """Return the same tensor stored in another order."""
        x = self.unshuffled()
        if x.order == order:
            return x
        stored = tuple(x.shape[axis] for axis in order)
        if [axis for axis in order if x.shape[axis] != 1] == [axis for axis in x.order if x.shape[axis] != 1]:
            value = x.recorder.reshape(x.value, stored)
        else:
            value = x._transposed(tuple(x.order.index(axis) for axis in order))
        return replace(x, value=value, order=order)

    def _transposed(self, axes: Order) -> Recorded:
        """Transpose in memory; where inputs have a batch of one, what is stored first is none, and gets one."""
        if axes[0] == 0 or not self.recorder.has_batch_of_one:
            return self.recorder.transpose(self.value, axes)
        stored = tuple(self.shape[axis] for axis in self.order)
        moved = self.recorder.transpose(self.recorder.reshape(self.value, (1, *stored)), (0, *(1 + a for a in axes)))
        return self.recorder.reshape(moved, tuple(stored[axis] for axis in axes))

    def unshuffled(self) -> SymbolicTensor:
        """Return the same tensor with a flattened axis in torch's order."""
        if self.shuffle is None:
            return self
        tile, at = self.shuffle.tile, self.order.index(self.shuffle.axis)
        stored = [self.shape[axis] for axis in self.order]
        split = (*stored[:at], *tile[1:], tile[0], *stored[at + 1 :])
        axes = (*range(at), at + len(tile) - 1, *range(at, at + len(tile) - 1), *range(at + len(tile), len(split)))
        value = self.recorder.transpose(self.recorder.reshape(self.value, split), axes)
        value = self.recorder.reshape(value, tuple(stored))
        return replace(self, value=value, shuffle=None)

    def moved(self, moves: Movement) -> Any:
        """Apply one of torch's moving functions."""
        if moves.kind == "same":
            return self
        axis = -1 if self.per_channel_axis < 0 else moved_axis(moves)
        if moves.kind == "permute":
            return self._permuted(permuted_axes(len(self.shape), moves.apply))
        if moves.kind == "reshape":
            return self._reshaped(shape_after(self.shape, moves.apply), axis)
        found = windows(self.shape, moves.apply) if moves.kind == "slice" else None
        if found is None:
            return self._copied(moves, axis)
        parts = [self._cut(window, axis) for window in found]
        several = isinstance(moves.apply(torch.empty(self.shape, device="meta")), (tuple, list))
        return tuple(parts) if several else parts[0]

    def _copied(self, moves: Movement, channel_axis: int) -> SymbolicTensor:
        """Pick elements axis by axis: each run of neighbours is a slice, and the slices are joined."""
        shape, picks = picked(self.shape, moves.apply, moves.name)
        x = self.unshuffled()._reshaped((1,) * (len(shape) - len(self.shape)) + self.shape, channel_axis)
        for axis, pick in enumerate(picks):
            x = x._joined(axis, [x._along(axis, run) for run in runs(pick)])
        return x._reshaped(shape, channel_axis)

    def _along(self, axis: int, run: range) -> SymbolicTensor:
        """Take some elements of one axis."""
        if run == range(self.shape[axis]):
            return self
        each = [range(n) for n in self.shape]
        each[axis] = run
        kept = tuple(len(taken) for taken in each)
        start, stop = (tuple(getattr(taken, end) for taken in each) for end in ("start", "stop"))
        return self._cut(Window(start, stop, tuple(taken.step for taken in each), kept), self.per_channel_axis)

    def _joined(self, axis: int, parts: list[SymbolicTensor]) -> SymbolicTensor:
        if len(parts) == 1:
            return parts[0]
        order = parts[0].order
        values = [part.to_order(order).value for part in parts]
        value = self.recorder.add(Concat(axis=order.index(axis)), *values, scale=self.scale)
        lengths = [sum(part.shape[axis] for part in parts) if i == axis else n for i, n in enumerate(self.shape)]
        return replace(parts[0], value=value, shape=tuple(lengths))

    def _permuted(self, axes: Order) -> SymbolicTensor:
        place = {old: new for new, old in enumerate(axes)}
        shuffle = None if self.shuffle is None else replace(self.shuffle, axis=place[self.shuffle.axis])
        return replace(
            self,
            shape=tuple(self.shape[axis] for axis in axes),
            order=tuple(place[axis] for axis in self.order),
            per_channel_axis=place.get(self.per_channel_axis, -1),
            shuffle=shuffle,
        )

    def _reshaped(self, shape: tuple[int, ...], channel_axis: int) -> SymbolicTensor:
        if shape == self.shape:
            return self
        if channel_axis >= 0:
            return self._reshaped_beside_channels(shape, channel_axis)
        order = order_after_squeeze(self.shape, self.order, shape)
        if order is not None:
            return self._squeezed(shape, order)
        rank = len(self.shape)
        flattens = rank >= 4 and shape == (self.shape[0], prod(self.shape[1:]))
        if flattens and self.order == channels_last(rank) and self.shuffle is None:
            value = self.recorder.reshape(self.value, shape)
            return replace(self, value=value, shape=shape, order=(0, 1), shuffle=Shuffle(1, self.shape[1:], self))
        x = self.to_order(identity(rank))
        value = x.recorder.reshape(x.value, shape)
        return replace(x, value=value, shape=shape, order=identity(len(shape)))

    def _reshaped_beside_channels(self, shape: tuple[int, ...], channel_axis: int) -> SymbolicTensor:
        """Regroup the other axes and leave the channels last, where a Program has its scales per channel."""
        before, after = (
            (*(axis for axis in range(rank) if axis != channels), channels)
            for rank, channels in ((len(self.shape), self.per_channel_axis), (len(shape), channel_axis))
        )
        x = self.to_order(before)
        value = x.recorder.reshape(x.value, tuple(shape[axis] for axis in after))
        return replace(x, value=value, shape=shape, order=after, per_channel_axis=channel_axis)

    def _squeezed(self, shape: tuple[int, ...], order: Order) -> SymbolicTensor:
        """Add or drop axes of length 1: memory stays as it is."""
        old, new = ([axis for axis, n in enumerate(s) if n != 1] for s in (self.shape, shape))
        renamed = dict(zip(old, new, strict=True))
        value = self.recorder.reshape(self.value, tuple(shape[axis] for axis in order))
        shuffle = None if self.shuffle is None else replace(self.shuffle, axis=renamed[self.shuffle.axis])
        return replace(self, value=value, shape=shape, order=order, shuffle=shuffle)

    def _cut(self, window: Window, channel_axis: int) -> SymbolicTensor:
        x = self.unshuffled()
        if window.stop == x.shape and not any(window.start) and set(window.step) <= {1}:
            return x._reshaped(window.shape, channel_axis)
        start, stop, step = (tuple(each[axis] for axis in x.order) for each in (window.start, window.stop, window.step))
        value = x.recorder.add(Slice(start=start, stop=stop, step=step), x.value, scale=x.scale)
        kept = tuple(len(range(*each)) for each in zip(window.start, window.stop, window.step, strict=True))
        return replace(x, value=value, shape=kept)._reshaped(window.shape, channel_axis)

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

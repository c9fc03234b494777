"""SymbolicTensor: what stands for a quantized tensor while a converted model is run to record its Program.

Converted modules compute through ``invoke`` and torch's moving functions alone. On a QTensor these compute integers; on
a SymbolicTensor they append nodes to a Program. So the recorded kernels are the ones that run.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bpu_kernels import ProgramBuilder, Value
from bpu_kernels.dtypes import QuantDType
from bpu_kernels.kernel import Kernel
from bpu_kernels.march import MarchRow
from bpu_kernels.ops.concat import Concat
from bpu_kernels.ops.conv import Conv2d
from bpu_kernels.ops.elementwise import Reinterpret
from bpu_kernels.ops.layout import Pad, Reshape, Slice, Transpose
from bpu_kernels.ops.linear import Linear, Matmul
from bpu_kernels.ops.reduce import Sum
from bpu_kernels.torch_ops import CHANNEL_FIRST, tensors_to_numpy
from bpu_qat_nn import MOVES

from .errors import LoweringError
from .layout import Order, bound, channels_last, identity, order_after_squeeze, permuted_axes, shape_after, windows

__all__ = ["Recorder", "SymbolicReal", "SymbolicTensor"]


@dataclass
class Recorder:
    """Appends to one Program; ``path`` is the module or node that is running."""

    builder: ProgramBuilder
    sources: dict[str, str] = field(default_factory=dict)
    """Input name -> "ddr", "pyramid" or "resizer"."""
    path: str = ""
    _reshaped: dict[str, Value] = field(default_factory=dict)
    """Name of a value that a Reshape gave -> what it reshaped."""
    _movements: dict[tuple[object, ...], Value] = field(default_factory=dict)

    def add(self, kernel: Kernel, *values: Value, scale: Tensor) -> Value:
        """Append a node."""
        return self.builder.add(tensors_to_numpy(kernel), *values, name=self.path, scale=scale.tolist())

    def reshape(self, value: Value, shape: tuple[int, ...], scale: Tensor) -> Value:
        """Append a Reshape, unless memory has that shape already; of several in a row only the last is left."""
        source = self._reshaped.get(value.name, value)
        if source.spec.shape == shape:
            return source
        reshaped = self._once(Reshape(shape=shape), source, scale, shape)
        self._reshaped[reshaped.name] = source
        return reshaped

    def transpose(self, value: Value, axes: tuple[int, ...], scale: Tensor) -> Value:
        """Append a Transpose, once for the same value."""
        return self._once(Transpose(axes=axes), value, scale, axes)

    def _once(self, kernel: Kernel, value: Value, scale: Tensor, key: object) -> Value:
        found = (type(kernel), value.name, key, *scale.tolist())
        if found not in self._movements:
            self._movements[found] = self.add(kernel, value, scale=scale)
        return self._movements[found]


@dataclass(frozen=True)
class Shuffle:
    """A flattened axis whose features lie in memory as (H, W, C) while torch counts them as (C, H, W)."""

    axis: int
    """Axis of the torch tensor."""
    tile: tuple[int, ...]
    """Lengths as torch counts them, channels first."""

    def logical_index(self) -> np.ndarray:
        """Return, for each stored position, the feature that lies there."""
        count = int(np.prod(self.tile))
        return np.moveaxis(np.arange(count).reshape(self.tile), 0, -1).ravel()


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
            raise LoweringError("a QuantStub behind a DeQuantStub: split the model there and lower the parts")
        if self._quantized is None:
            order = channels_last(len(self.shape))
            stored = [self.shape[axis] for axis in order]
            source = self.recorder.sources.get(self.name, "ddr")
            value = self.recorder.builder.input(self.name, stored, dtype, scale.tolist(), source)
            self._quantized = SymbolicTensor(self.recorder, value, self.shape, order, scale, dtype)
        elif not torch.equal(self._quantized.scale, scale):
            raise LoweringError(
                f"input {self.name!r} goes through QuantStubs of different scale; give each its own input"
            )
        return self._quantized

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Refuse to compute on real values."""
        raise LoweringError(
            f"{getattr(func, '__name__', func)} works on a real tensor, which a Program does not hold: quantize inputs "
            "first, and keep what follows the DeQuantStubs outside the model that is lowered"
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "invoke":
            raise AttributeError(name)
        return self.__torch_function__(getattr(torch.Tensor, name, name), ())


@dataclass(frozen=True, eq=False)
class SymbolicTensor:
    """A value of the Program that is being recorded, seen as the torch tensor that it stands for."""

    recorder: Recorder
    value: Value
    shape: tuple[int, ...]
    order: Order
    scale: Tensor
    dtype: QuantDType
    per_channel_axis: int = -1
    shuffle: Shuffle | None = None

    @property
    def holds_steps(self) -> bool:
        """It stands for integers."""
        return True

    def size(self, dim: int | None = None) -> Any:
        """Shape, or one length of it."""
        return torch.Size(self.shape) if dim is None else self.shape[dim]

    def dim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def numel(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape))

    def with_scale(self, scale: Tensor) -> SymbolicTensor:
        """Return the same integers with another meaning."""
        return replace(self, value=self.recorder.add(Reinterpret(), self.value, scale=scale), scale=scale)

    def dequantize(self) -> SymbolicReal:
        """Return what stands for the real values."""
        return SymbolicReal(self.recorder, self.value.name, self.shape, self)

    # Computation

    @staticmethod
    def invoke(
        kernel: Kernel,
        row: MarchRow,
        *inputs: SymbolicTensor,
        scale: Tensor,
        dtype: QuantDType,
        axis: int = -1,
        narrow: bool = False,
    ) -> SymbolicTensor:
        """Record an operator; as ``QTensor.invoke``."""
        kernel, prepared = _arrange(kernel, inputs)
        first = prepared[0]
        value = first.recorder.add(kernel, *(x.value for x in prepared), scale=scale)
        order = first.order if len(first.order) == len(value.spec.shape) else identity(len(value.spec.shape))
        shape = [0] * len(order)
        for stored, logical in enumerate(order):
            shape[logical] = value.spec.shape[stored]
        return SymbolicTensor(first.recorder, value, tuple(shape), order, scale, dtype, axis)

    # Movement

    def to_order(self, order: Order) -> SymbolicTensor:
        """Return the same tensor stored in another order."""
        x = self.unshuffled()
        if x.order == order:
            return x
        stored = [x.shape[axis] for axis in order]
        moving = [axis for axis in order if x.shape[axis] != 1]
        if moving == [axis for axis in x.order if x.shape[axis] != 1]:
            value = x.recorder.reshape(x.value, tuple(stored), x.scale)
        else:
            value = x.recorder.transpose(x.value, tuple(x.order.index(axis) for axis in order), x.scale)
        return replace(x, value=value, order=order)

    def unshuffled(self) -> SymbolicTensor:
        """Return the same tensor with a flattened axis in torch's order."""
        if self.shuffle is None:
            return self
        tile, at = self.shuffle.tile, self.order.index(self.shuffle.axis)
        stored = [self.shape[axis] for axis in self.order]
        split = (*stored[:at], *tile[1:], tile[0], *stored[at + 1 :])
        axes = (*range(at), at + len(tile) - 1, *range(at, at + len(tile) - 1), *range(at + len(tile), len(split)))
        value = self.recorder.reshape(self.value, split, self.scale)
        value = self.recorder.transpose(value, axes, self.scale)
        value = self.recorder.reshape(value, tuple(stored), self.scale)
        return replace(self, value=value, shuffle=None)

    def moved(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Apply one of torch's moving functions."""
        name = getattr(func, "__name__", str(func))
        kind, move = MOVES[name], bound(func, args, kwargs)
        if kind == "same":
            return self
        if kind == "permute":
            return self._permuted(permuted_axes(len(self.shape), move))
        if kind == "reshape":
            return self._reshaped(shape_after(self.shape, move))
        parts = [self._cut(window) for window in windows(self.shape, move)]
        several = isinstance(move(torch.empty(self.shape, device="meta")), (tuple, list))
        return tuple(parts) if several else parts[0]

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

    def _reshaped(self, shape: tuple[int, ...]) -> SymbolicTensor:
        if shape == self.shape:
            return self
        order = order_after_squeeze(self.shape, self.order, shape)
        if order is not None:
            return self._squeezed(shape, order)
        if self.per_channel_axis >= 0:
            raise LoweringError("a tensor with one scale per channel is reshaped; put the DeQuantStub before it")
        rank = len(self.shape)
        flattens = rank >= 4 and shape == (self.shape[0], int(np.prod(self.shape[1:])))
        if flattens and self.order == channels_last(rank) and self.shuffle is None:
            value = self.recorder.reshape(self.value, shape, self.scale)
            return replace(self, value=value, shape=shape, order=(0, 1), shuffle=Shuffle(1, self.shape[1:]))
        x = self.to_order(identity(rank))
        value = x.recorder.reshape(x.value, shape, x.scale)
        return replace(x, value=value, shape=shape, order=identity(len(shape)))

    def _squeezed(self, shape: tuple[int, ...], order: Order) -> SymbolicTensor:
        """Add or drop axes of length 1: memory stays as it is."""
        old, new = ([axis for axis, n in enumerate(s) if n != 1] for s in (self.shape, shape))
        renamed = dict(zip(old, new, strict=True))
        value = self.recorder.reshape(self.value, tuple(shape[axis] for axis in order), self.scale)
        shuffle = None if self.shuffle is None else replace(self.shuffle, axis=renamed[self.shuffle.axis])
        return replace(
            self,
            value=value,
            shape=shape,
            order=order,
            per_channel_axis=renamed.get(self.per_channel_axis, -1),
            shuffle=shuffle,
        )

    def _cut(self, window: Any) -> SymbolicTensor:
        x = self.unshuffled()
        if window.stop == x.shape and not any(window.start) and set(window.step) <= {1}:
            return x._reshaped(window.shape)
        start, stop, step = (tuple(each[axis] for axis in x.order) for each in (window.start, window.stop, window.step))
        value = x.recorder.add(Slice(start=start, stop=stop, step=step), x.value, scale=x.scale)
        kept = tuple(len(range(*each)) for each in zip(window.start, window.stop, window.step, strict=True))
        return replace(x, value=value, shape=kept)._reshaped(window.shape)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Move; refuse the rest."""
        name = getattr(func, "__name__", str(func))
        if name not in MOVES:
            raise LoweringError(f"{name} works on a quantized tensor, but has no integer form")
        return args[0].moved(func, args[1:], kwargs or {})

    def __getitem__(self, index: Any) -> Any:
        return self.moved(operator.getitem, (index,), {})

    def __getattr__(self, name: str) -> Any:
        if name not in MOVES:
            raise AttributeError(f"{name} is not available on a quantized tensor that is being lowered")
        func = getattr(torch.Tensor, name)
        return lambda *args, **kwargs: self.moved(func, args, kwargs)


def _arrange(kernel: Kernel, inputs: tuple[SymbolicTensor, ...]) -> tuple[Any, list[SymbolicTensor]]:
    """Bring inputs to the order that an operator needs, and its axes to stored ones."""
    first = inputs[0]
    if isinstance(kernel, (Linear, Conv2d)) and first.shuffle is not None:
        absorbed = _absorb_shuffle(kernel, first)
        if absorbed is not None:
            kernel, first = absorbed
    rank = len(first.shape)
    if type(kernel) in CHANNEL_FIRST:
        order = channels_last(rank)
    elif isinstance(kernel, (Linear, Matmul)):
        order = identity(rank)
    else:
        order = first.order
    ranked = [first, *inputs[1:]]
    if any(len(x.shape) != rank for x in ranked):  # broadcasting against fewer axes lines up torch's last axes
        rank = max(len(x.shape) for x in ranked)
        ranked = [x._reshaped((1,) * (rank - len(x.shape)) + x.shape) for x in ranked]
        order = identity(rank)
    arranged = [x.to_order(order) for x in ranked]
    if isinstance(kernel, (Concat, Sum)):
        kernel = replace(kernel, axis=order.index(kernel.axis))
    elif isinstance(kernel, Pad):
        before, after = (tuple(each[axis] for axis in order) for each in (kernel.before, kernel.after))
        kernel = replace(kernel, before=before, after=after)
    return kernel, arranged


def _absorb_shuffle(kernel: Linear | Conv2d, x: SymbolicTensor) -> tuple[Kernel, SymbolicTensor] | None:
    """Sort the weights instead of the features where each feature has a weight of its own."""
    assert x.shuffle is not None
    features = len(x.shape) - 1 if isinstance(kernel, Linear) else 1
    pointwise = isinstance(kernel, Linear) or (tuple(kernel.weight.shape[1:3]) == (1, 1) and kernel.groups == 1)
    if x.shuffle.axis != features or not pointwise:
        return None
    index = torch.from_numpy(x.shuffle.logical_index()).to(kernel.weight.device)
    return replace(kernel, weight=kernel.weight[..., index]), replace(x, shuffle=None)

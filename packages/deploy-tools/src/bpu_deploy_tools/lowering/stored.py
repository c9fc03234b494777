"""StoredTensor: a value of a Program as a tensor of torch's shape, and what torch's moving functions do to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeVar

import torch
from torch import Tensor

from bpu_kernels.dtypes import QuantDType
from bpu_kernels.ops.concat import Concat
from bpu_kernels.ops.layout import Slice
from bpu_kernels.torch_ops import picked, runs
from bpu_qat_nn.moves import Movement, moved_axis, movement

from ..errors import LoweringError
from .layout import (
    Order,
    Shuffle,
    Window,
    channels_last,
    identity,
    order_after_squeeze,
    permuted_axes,
    shape_after,
    windows,
)
from .recorder import Recorded, Recorder

__all__ = ["StoredTensor"]

_T = TypeVar("_T", bound="StoredTensor")


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A value of the Program that is being recorded, and how the axes that torch sees lie in memory."""

    recorder: Recorder
    value: Recorded
    shape: tuple[int, ...]
    order: Order
    scale: Tensor
    dtype: QuantDType
    per_channel_axis: int = -1
    """Axis of a scale per channel, which is the last one in memory; -1 for one scale."""
    shuffle: Shuffle | None = None

    def repeated(self: _T, batch: int) -> _T:
        """Return a constant of batch 1 once for every element of a batch."""
        if self.value.kernel is None or self.shape[0] != 1 or batch == 1:
            return self
        integers = torch.from_numpy(self.value.kernel.run(self.recorder.row))
        value = self.recorder.constant(integers.repeat(batch, *[1] * (integers.dim() - 1)), self.dtype, self.scale)
        return replace(self, value=value, shape=(batch, *self.shape[1:]))

    def with_shape(self: _T, shape: tuple[int, ...]) -> _T:
        """Return the same elements in another shape, in torch's order."""
        moves = movement(torch.Tensor.reshape, (self, shape), {})
        assert moves is not None
        reshaped: _T = self.moved(moves)
        return reshaped

    def to_order(self: _T, order: Order) -> _T:
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

    def unshuffled(self: _T) -> _T:
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

    def _copied(self: _T, moves: Movement, channel_axis: int) -> _T:
        """Pick elements axis by axis: each run of neighbours is a slice, and the slices are joined."""
        found = picked(self.shape, moves.apply)
        if found is None:
            raise LoweringError(
                f"{moves.name} picks elements by more than one axis at once, for which there is no operator"
            )
        shape, picks = found
        x = self.unshuffled()._reshaped((1,) * (len(shape) - len(self.shape)) + self.shape, channel_axis)
        for axis, pick in enumerate(picks):
            x = x._joined(axis, [x._along(axis, run) for run in runs(pick)])
        return x._reshaped(shape, channel_axis)

    def _along(self: _T, axis: int, run: range) -> _T:
        """Take some elements of one axis."""
        if run == range(self.shape[axis]):
            return self
        each = [range(n) for n in self.shape]
        each[axis] = run
        kept = tuple(len(taken) for taken in each)
        start, stop = (tuple(getattr(taken, end) for taken in each) for end in ("start", "stop"))
        return self._cut(Window(start, stop, tuple(taken.step for taken in each), kept), self.per_channel_axis)

    def _joined(self: _T, axis: int, parts: list[_T]) -> _T:
        if len(parts) == 1:
            return parts[0]
        order = parts[0].order
        values = [part.to_order(order).value for part in parts]
        value = self.recorder.add(Concat(axis=order.index(axis)), *values, scale=self.scale)
        lengths = [sum(part.shape[axis] for part in parts) if i == axis else n for i, n in enumerate(self.shape)]
        return replace(parts[0], value=value, shape=tuple(lengths))

    def _permuted(self: _T, axes: Order) -> _T:
        place = {old: new for new, old in enumerate(axes)}
        shuffle = None if self.shuffle is None else replace(self.shuffle, axis=place[self.shuffle.axis])
        return replace(
            self,
            shape=tuple(self.shape[axis] for axis in axes),
            order=tuple(place[axis] for axis in self.order),
            per_channel_axis=place.get(self.per_channel_axis, -1),
            shuffle=shuffle,
        )

    def _reshaped(self: _T, shape: tuple[int, ...], channel_axis: int) -> _T:
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

    def _reshaped_beside_channels(self: _T, shape: tuple[int, ...], channel_axis: int) -> _T:
        """Regroup the other axes and leave the channels last, where a Program has its scales per channel."""
        before, after = (
            (*(axis for axis in range(rank) if axis != channels), channels)
            for rank, channels in ((len(self.shape), self.per_channel_axis), (len(shape), channel_axis))
        )
        x = self.to_order(before)
        value = x.recorder.reshape(x.value, tuple(shape[axis] for axis in after))
        return replace(x, value=value, shape=shape, order=after, per_channel_axis=channel_axis)

    def _squeezed(self: _T, shape: tuple[int, ...], order: Order) -> _T:
        """Add or drop axes of length 1: memory stays as it is."""
        old, new = ([axis for axis, n in enumerate(s) if n != 1] for s in (self.shape, shape))
        renamed = dict(zip(old, new, strict=True))
        value = self.recorder.reshape(self.value, tuple(shape[axis] for axis in order))
        shuffle = None if self.shuffle is None else replace(self.shuffle, axis=renamed[self.shuffle.axis])
        return replace(self, value=value, shape=shape, order=order, shuffle=shuffle)

    def _cut(self: _T, window: Window, channel_axis: int) -> _T:
        x = self.unshuffled()
        if window.stop == x.shape and not any(window.start) and set(window.step) <= {1}:
            return x._reshaped(window.shape, channel_axis)
        start, stop, step = (tuple(each[axis] for axis in x.order) for each in (window.start, window.stop, window.step))
        value = x.recorder.add(Slice(start=start, stop=stop, step=step), x.value, scale=x.scale)
        kept = tuple(len(range(*each)) for each in zip(window.start, window.stop, window.step, strict=True))
        return replace(x, value=value, shape=kept)._reshaped(window.shape, channel_axis)

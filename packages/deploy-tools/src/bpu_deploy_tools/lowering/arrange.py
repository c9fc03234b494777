"""What an operator needs of its inputs' layout, and how to give it by sorting weights instead of moving features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch

from bpu_kernels.kernel import Kernel
from bpu_kernels.ops.constant import Constant
from bpu_kernels.ops.conv import Conv2d
from bpu_kernels.ops.linear import Linear, Matmul
from bpu_kernels.torch_ops import CHANNEL_FIRST, channel_first, in_order

from .layout import Order, Shuffle, channels_last, identity
from .stored import StoredTensor

__all__ = ["arranged", "over_whole_map"]

_T = TypeVar("_T", bound=StoredTensor)


def arranged(kernel: Kernel, inputs: Sequence[_T]) -> tuple[Any, list[_T]]:
    """Bring inputs to the order that an operator needs, and its axes to stored ones."""
    first = inputs[0]
    if first.shuffle is not None and _weighs_features(kernel, first):
        kernel = _with_sorted_features(kernel, first.shuffle)
        first = replace(first, shuffle=None)
    if type(kernel) in CHANNEL_FIRST and not all(channel_first(type(kernel), len(inputs))):
        maps = zip(inputs, channel_first(type(kernel), len(inputs)), strict=True)
        return kernel, [x.to_order((channels_last if is_map else identity)(len(x.shape))) for x, is_map in maps]
    ranked = _of_one_rank([first, *inputs[1:]])
    order = _wanted_order(kernel, ranked[0] if len(ranked[0].shape) != len(first.shape) else first)
    ordered = _of_one_batch([x.to_order(order) for x in ranked])
    return in_order(kernel, order), ordered


def _of_one_rank(inputs: list[_T]) -> list[_T]:
    """Give all inputs as many axes as the one with the most, at least one: broadcasting lines up torch's last axes."""
    rank = max(1, *(len(x.shape) for x in inputs))
    return [x.with_shape((1,) * (rank - len(x.shape)) + x.shape) for x in inputs]


def _of_one_batch(inputs: list[_T]) -> list[_T]:
    """Repeat constants for every element of the batch, which the hardware does not broadcast."""
    batch = max((x.shape[0] for x in inputs if x.shape), default=1)
    return [x.repeated(batch) if isinstance(x.value.kernel, Constant) else x for x in inputs]


def _wanted_order(kernel: Kernel, first: StoredTensor) -> Order:
    rank = len(first.shape)
    if type(kernel) in CHANNEL_FIRST:
        return channels_last(rank)
    return identity(rank) if isinstance(kernel, (Linear, Matmul)) else first.order


def _with_sorted_features(kernel: Any, shuffle: Shuffle) -> Any:
    index = torch.from_numpy(shuffle.logical_index()).to(kernel.weight.device)
    return replace(kernel, weight=kernel.weight[..., index])


def _weighs_features(kernel: Kernel, x: StoredTensor) -> bool:
    """Whether each feature of a flattened axis has a weight of its own, which can be sorted instead."""
    assert x.shuffle is not None
    if isinstance(kernel, Linear):
        return x.shuffle.axis == len(x.shape) - 1
    pointwise = isinstance(kernel, Conv2d) and tuple(kernel.weight.shape[1:3]) == (1, 1) and kernel.groups == 1
    return pointwise and x.shuffle.axis == 1


def over_whole_map(kernel: Kernel, inputs: Sequence[_T]) -> tuple[Conv2d, list[_T], tuple[int, ...]] | None:
    """Return the convolution with a kernel as large as the map that stands for a linear layer on a flattened map.

    For marches that cannot flatten. None where that is not what is computed.

    Returns:
        The convolution, its inputs, and the shape that the result shall have.
    """
    x = inputs[0]
    if x.shuffle is None or len(x.shuffle.tile) != 3 or not _weighs_features(kernel, x):
        return None
    whole: Any = kernel
    outputs = int(whole.weight.shape[0])
    convolution = Conv2d(
        weight=whole.weight.reshape(outputs, *x.shuffle.tile).movedim(1, -1),
        bias=whole.bias,
        multiplier=whole.multiplier,
        residual=whole.residual,
        relu=whole.relu,
        out_dtype=getattr(whole, "out_dtype", Conv2d.out_dtype),
    )
    batch = x.shape[0]
    maps = [x.shuffle.source, *(each.with_shape((batch, outputs, 1, 1)) for each in inputs[1:])]
    shape = tuple(outputs if axis == x.shuffle.axis else n for axis, n in enumerate(x.shape))
    return convolution, maps, shape

"""Steps of layers with weights: all are convolutions in three dimensions; a transposed one is several of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np

from ...dtypes import QuantDType, qint8
from ...kernel import IntArray, Kernel
from ...ops.conv import Conv2d, Conv3d, Convolution
from ...ops.conv_transpose import ConvTranspose2d
from ...ops.linear import Linear
from .context import Context

__all__ = ["STEPS"]


def _bias(kernel: Convolution | ConvTranspose2d | Linear) -> Any:
    if kernel.bias is None:
        return 0
    return kernel.bias.shifted()


def _spatial(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape with the axes batch, depth, height, width, channels."""
    return (shape[0], *(1,) * (5 - len(shape)), *shape[1:])


def _finish(
    context: Context, kernel: Convolution | ConvTranspose2d | Linear, shape: tuple[int, ...], out: QuantDType
) -> None:
    """Append residual and requantization of a layer with weights."""
    addend = context.inputs[1] if kernel.residual is not None else None
    context.words.residual(kernel.residual, addend, shape)
    context.words.requantizer(
        kernel.multiplier, context.channels, out, rounds=context.row.rounds, before=_bias(kernel), relu=kernel.relu
    )


def _convolution(context: Context, kernel: Convolution) -> None:
    missing = 3 - kernel.rank
    _layer(
        context,
        kernel,
        (_spatial(context.inputs[0].spec.shape), _spatial(context.out.spec.shape)),
        kernel.weight.reshape(len(kernel.weight), *(1,) * missing, *kernel.weight.shape[1:]),
        stride=(1,) * missing + kernel.stride,
        pad=(0,) * missing + kernel.pad,
        dilation=(1,) * missing + kernel.dilation,
    )


def _linear(context: Context, kernel: Linear) -> None:
    """As a convolution with a kernel of 1 over a row of positions."""
    features = context.inputs[0].spec.shape[-1]
    rows = prod(context.inputs[0].spec.shape[:-1])
    weight = kernel.weight.reshape(context.channels, 1, 1, 1, features)
    _layer(context, kernel, ((1, 1, 1, rows, features), (1, 1, 1, rows, context.channels)), weight)


def _layer(
    context: Context,
    kernel: Convolution | ConvTranspose2d | Linear,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    weight: IntArray,
    *,
    stride: tuple[int, ...] = (1, 1, 1),
    pad: tuple[int, ...] = (0, 0, 0),
    dilation: tuple[int, ...] = (1, 1, 1),
    step: tuple[int, ...] = (1, 1, 1),
    first: tuple[int, ...] = (0, 0, 0),
) -> None:
    """Append a convolution in three dimensions; ``step`` and ``first`` say which positions of the output it gives."""
    words, x = context.begin("convolution"), context.inputs[0]
    words.tensor(x, shapes[0])
    words.tensor(context.out, shapes[1])
    for entries in (weight.shape[1:4], stride, pad, dilation, step, first):
        words.list(entries)
    words.numbers(getattr(kernel, "groups", 1), x.positive)
    words.array(weight, "int8")
    _finish(context, kernel, shapes[1], getattr(kernel, "out_dtype", qint8))


def _conv_transpose(context: Context, kernel: ConvTranspose2d) -> None:
    """As one convolution of stride 1 for every phase, the outputs that take the same taps: those a stride apart."""
    shapes = (_spatial(context.inputs[0].spec.shape), _spatial(context.out.spec.shape))
    sizes = zip(kernel.weight.shape[1:3], kernel.stride, kernel.pad, shapes[1][2:4], strict=True)
    high, wide = ([_phase(k, s, p, first) for first in range(min(s, n))] for k, s, p, n in sizes)
    for y, x in product(high, wide):
        _layer(
            context,
            kernel,
            shapes,
            _weight_of_phase(kernel, y.taps, x.taps),
            pad=(0, y.pad, x.pad),
            step=(1, *kernel.stride),
            first=(0, y.first, x.first),
        )


@dataclass(frozen=True)
class _Phase:
    """One axis of the outputs of a transposed convolution that take the same taps."""

    first: int
    taps: tuple[int, ...]
    """In the order of the inputs they meet, which is the reverse of theirs."""
    pad: int
    """Of the convolution of stride 1 that gives them; negative where it starts inside the input."""


def _phase(kernel: int, stride: int, pad: int, first: int) -> _Phase:
    """Output ``first + stride * m`` takes input ``m + (first + pad - tap) / stride`` for every tap that divides."""
    taps = tuple(range((first + pad) % stride, kernel, stride))[::-1]
    return _Phase(first, taps, (taps[0] - first - pad) // stride if taps else 0)


def _weight_of_phase(kernel: ConvTranspose2d, rows: tuple[int, ...], columns: tuple[int, ...]) -> IntArray:
    """Return the weights at some taps, output channel first; a phase without taps has one of zeros."""
    inputs, outputs, groups = kernel.weight.shape[0], kernel.weight.shape[3], kernel.groups
    if not rows or not columns:
        return np.zeros((outputs * groups, 1, 1, 1, inputs // groups), np.int8)
    chosen = kernel.weight[:, rows][:, :, columns].reshape(groups, inputs // groups, len(rows), len(columns), outputs)
    arranged: IntArray = chosen.transpose(0, 4, 2, 3, 1).reshape(
        outputs * groups, 1, len(rows), len(columns), inputs // groups
    )
    return arranged


STEPS: dict[type[Kernel], Callable[[Context, Any], None]] = {
    Conv2d: _convolution,
    Conv3d: _convolution,
    ConvTranspose2d: _conv_transpose,
    Linear: _linear,
}

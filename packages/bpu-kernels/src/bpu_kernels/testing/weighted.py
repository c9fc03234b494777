"""Random cases of the operators with weights, and of the matrix product."""

from __future__ import annotations

from math import prod

import numpy as np

from ..dtypes import QuantDType, qint8, qint16, qint32
from ..kernel import IntArray, Kernel
from ..march import MarchRow
from ..ops.conv import Conv2d, Conv3d
from ..ops.conv_transpose import ConvTranspose2d
from ..ops.linear import Linear, Matmul
from .integers import random_integers
from .parameters import coin, random_bias, random_entries, random_lengths, random_multiplier, random_residual

__all__ = ["conv2d", "conv3d", "conv_transpose2d", "linear", "matmul"]

Case = tuple[Kernel, tuple[IntArray, ...]]
Rng = np.random.Generator


def _accumulator_bound(weight: np.ndarray, x: QuantDType) -> int:
    """Return the largest accumulator that random inputs are likely to give: the root of the number of taps."""
    taps = prod(weight.shape[1:])
    return int(max(taps, 1) ** 0.5 * 80 * -x.min)


def conv2d(rng: Rng, row: MarchRow) -> Case:
    """Ordinary, grouped and depthwise; every pair of types; with and without bias, residual, ReLU."""
    given = row.activations[rng.integers(len(row.activations))]
    out = (*row.activations, qint32)[rng.integers(len(row.activations) + 1)]
    groups, per_group = random_lengths(rng, 2, 1, 3)
    if coin(rng):  # depthwise
        groups, per_group = groups * 2, 1
    outputs = groups * (1 if per_group == 1 else int(rng.integers(1, 4)))
    kernel = random_lengths(rng, 2, 1, 4)
    dilation = random_entries(rng, row.dilation, 2, 4) if given is out is qint8 and coin(rng) else (1, 1)
    if row.wider_than_high:
        dilation = tuple(sorted(dilation))
    stride = random_entries(rng, row.stride, 2, 3) if max(dilation) == 1 else (1, 1)
    if given is qint16 and per_group == 1:
        stride = (1, 3) if coin(rng) else (1, 1)
    pad = tuple(int(rng.integers(0, k // 2, endpoint=True)) for k in kernel)
    needed = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    x = random_integers(
        rng, (*random_lengths(rng, 1, 1, 2), *(n + int(rng.integers(0, 5)) for n in needed), groups * per_group), given
    )
    weight = random_integers(rng, (outputs, *kernel, per_group))
    bound = _accumulator_bound(weight, given)
    with_residual = coin(rng) and given is qint8 and (out is qint8 or qint16 in row.activations)
    conv = Conv2d(
        weight=weight,
        bias=random_bias(rng, row, outputs, bound) if coin(rng) else None,
        multiplier=random_multiplier(rng, row, bound, out=out, channels=outputs),
        residual=random_residual(rng, row, outputs, bound) if with_residual else None,
        stride=stride,
        pad=pad,
        dilation=dilation,
        groups=groups,
        relu=coin(rng) and (out is not qint32 or row.rounds),
        out_dtype=out,
    )
    return conv, (x, *_residual_of(rng, conv, row, x))


def _residual_of(
    rng: Rng, kernel: Conv2d | ConvTranspose2d | Linear, row: MarchRow, x: IntArray
) -> tuple[IntArray, ...]:
    """Return the second input where the kernel has residual scales: int8 of the output's shape."""
    if kernel.residual is None:
        return ()
    alone = {name: value for name, value in vars(kernel).items() if name != "residual"}
    return (random_integers(rng, type(kernel)(**alone).run(row, x).shape),)


def conv3d(rng: Rng, row: MarchRow) -> Case:
    """int8 to int8."""
    kernel = random_lengths(rng, 3, 1, 3)
    weight = random_integers(rng, (int(rng.integers(1, 5)), *kernel, int(rng.integers(1, 4))))
    x = random_integers(rng, (1, *(k + int(rng.integers(0, 4)) for k in kernel), weight.shape[-1]))
    bound = _accumulator_bound(weight, qint8)
    conv = Conv3d(
        weight=weight,
        bias=random_bias(rng, row, len(weight), bound),
        multiplier=random_multiplier(rng, row, bound, channels=len(weight)),
        stride=random_entries(rng, row.conv3d_stride, 1, 2) * 3,
        pad=tuple(int(rng.integers(0, k // 2, endpoint=True)) for k in kernel),
        relu=coin(rng),
    )
    return conv, (x,)


def conv_transpose2d(rng: Rng, row: MarchRow) -> Case:
    """With and without groups, output padding, bias, residual, ReLU."""
    stride = random_entries(rng, row.transpose_stride, 2, 4)
    if row.wider_than_high:
        stride = tuple(sorted(stride))
    kernel = tuple(max(2, s + int(rng.integers(0, 3))) for s in stride)
    groups = int(rng.integers(1, 3))
    weight = random_integers(rng, (groups * int(rng.integers(1, 4)), *kernel, int(rng.integers(1, 4))))
    x = random_integers(rng, (*random_lengths(rng, 1, 1, 2), *random_lengths(rng, 2, 2, 4), len(weight)))
    outputs = weight.shape[3] * groups
    bound = _accumulator_bound(weight.swapaxes(0, 3), qint8)
    conv = ConvTranspose2d(
        weight=weight,
        bias=random_bias(rng, row, outputs, bound) if coin(rng) else None,
        multiplier=random_multiplier(rng, row, bound, channels=outputs),
        residual=random_residual(rng, row, outputs, bound) if coin(rng) else None,
        stride=stride,
        pad=tuple(int(rng.choice(_transposed_pads(k, s))) for k, s in zip(kernel, stride, strict=True)),
        output_padding=tuple(int(rng.integers(0, min(s, 2))) for s in stride),
        groups=groups,
        relu=coin(rng),
    )
    return conv, (x, *_residual_of(rng, conv, row, x))


def _transposed_pads(kernel: int, stride: int) -> list[int]:
    return [pad for pad in range(kernel // stride + 1) if 2 * pad % stride == 0]


def linear(rng: Rng, row: MarchRow) -> Case:
    """One to three leading axes; with and without bias, residual, ReLU."""
    weight = random_integers(rng, random_lengths(rng, 2, 1, 20))
    x = random_integers(rng, (*random_lengths(rng, int(rng.integers(1, 4)), 1, 3), weight.shape[1]))
    bound = _accumulator_bound(weight, qint8)
    linear = Linear(
        weight=weight,
        bias=random_bias(rng, row, len(weight), bound) if coin(rng) else None,
        multiplier=random_multiplier(rng, row, bound, channels=len(weight)),
        residual=random_residual(rng, row, len(weight), bound) if coin(rng) else None,
        relu=coin(rng),
    )
    return linear, (x, *_residual_of(rng, linear, row, x))


def matmul(rng: Rng, row: MarchRow) -> Case:
    """Batched."""
    batch, rows, inner, columns = (*random_lengths(rng, 1, 1, 3), *random_lengths(rng, 3, 1, 12))
    first, second = (batch if coin(rng) else 1 for _ in range(2))
    x, y = random_integers(rng, (1, first, rows, inner)), random_integers(rng, (1, second, inner, columns))
    return Matmul(multiplier=random_multiplier(rng, row, int(inner**0.5 * 2**13))), (x, y)

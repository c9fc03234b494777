"""Random parameters within the ranges of a march: lengths, multipliers, biases, residual scales, segment tables."""

from __future__ import annotations

import numpy as np

from ..dtypes import QuantDType, qint8
from ..fixed_point import Multiplier
from ..kernel import IntArray
from ..march import Limit, MarchRow
from ..multiplier import Bias, ResidualScale
from ..ops.lut import Lut16, SegmentLine

__all__ = [
    "coin",
    "random_bias",
    "random_entries",
    "random_lengths",
    "random_lut16",
    "random_multiplier",
    "random_residual",
    "random_within",
]


def random_lengths(rng: np.random.Generator, count: int, least: int, most: int) -> tuple[int, ...]:
    """Return integers of least..most."""
    return tuple(int(n) for n in rng.integers(least, most, count, endpoint=True))


def random_entries(rng: np.random.Generator, limit: Limit, count: int, most: int) -> tuple[int, ...]:
    """Return entries that a limit allows, none above ``most``."""
    return tuple(int(n) for n in rng.choice([n for n in limit.allowed[:most] if n <= most], count))


def coin(rng: np.random.Generator) -> bool:
    """Return one truth value or the other."""
    return bool(rng.integers(2))


def random_within(rng: np.random.Generator, limit: Limit, size: int = 1) -> IntArray:
    """Return int32 values that a limit allows, its ends more often than the rest."""
    allowed = limit.allowed
    ends = rng.choice([allowed[0], allowed[-1]], size)
    inner = np.array([allowed[i] for i in rng.integers(0, len(allowed), size)])
    return np.where(rng.random(size) < 1 / 16, ends, inner).astype(np.int32)


def random_multiplier(
    rng: np.random.Generator,
    row: MarchRow,
    bound: int,
    *,
    out: QuantDType = qint8,
    channels: int = 1,
    least_accu_shift: int = 0,
    right_shift: Limit | None = None,
) -> Multiplier:
    """Return a multiplier that spreads accumulators up to ``bound`` over the output's range, or any valid one.

    Per channel in about half of the draws. One in eight is drawn from the whole ranges, so that outputs saturate,
    vanish, or saturate int16 in the middle.
    """
    size = int(rng.choice([1, channels]))
    shifts = right_shift or row.output_right_shift
    if rng.random() < 1 / 8:
        accu = np.maximum(random_within(rng, row.accu_right_shift, size), least_accu_shift)
        return Multiplier(
            accu_right_shift=accu.astype(np.int32),
            output_scale=random_within(rng, row.output_scale, size),
            output_right_shift=random_within(rng, shifts, size),
        )
    wanted = bound.bit_length() - 15 + rng.integers(-1, 2, size)
    accu = np.clip(wanted, least_accu_shift, row.accu_right_shift.allowed[-1])
    scale = rng.integers(2**13, 2**15, size)
    product = (bound >> accu.astype(np.int64)).clip(1, 2**15) * scale
    right = np.ceil(np.log2(product)).astype(np.int64) - (out.bits - 1) + rng.integers(-2, 3, size)
    return Multiplier(
        accu_right_shift=accu.astype(np.int32),
        output_scale=scale.astype(np.int32),
        output_right_shift=np.clip(right, shifts.allowed[0], shifts.allowed[-1]).astype(np.int32),
    )


def random_bias(rng: np.random.Generator, row: MarchRow, channels: int, bound: int) -> Bias:
    """Return a bias of about the size of the accumulators, as the march stores it."""
    value = rng.integers(-bound, bound, channels, endpoint=True)
    shift = np.zeros(channels, np.int32)
    if row.bias.bits == 16:
        shift = random_within(rng, row.bias_left_shift, channels)
        value = value >> shift
    return Bias(bias=np.clip(value, row.bias.min, row.bias.max).astype(np.int32), bias_left_shift=shift)


def random_residual(rng: np.random.Generator, row: MarchRow, channels: int, bound: int) -> ResidualScale:
    """Return the scale of a residual that reaches about ``bound``; one in eight is any, so that its term can wrap."""
    size = int(rng.choice([1, channels]))
    low, high = row.sumin_left_shift.allowed[0], row.sumin_left_shift.allowed[-1]
    scale = random_within(rng, row.sumin_scale, size)
    if rng.random() < 1 / 8:
        return ResidualScale(sumin_scale=scale, sumin_left_shift=random_within(rng, row.sumin_left_shift, size))
    shift = np.ceil(np.log2(max(bound, 1) / (np.maximum(scale, 1) * 128.0)))
    return ResidualScale(sumin_scale=scale, sumin_left_shift=np.clip(shift, low, high).astype(np.int32))


def random_lut16(rng: np.random.Generator) -> Lut16:
    """Return a segment table like that of a function: lines that map each zone onto its entries, smooth tables."""
    maxima = np.sort(rng.choice(np.arange(-32000, 32000, 64), 7, replace=False))
    k, b, add, right = (np.zeros(8, np.int64) for _ in range(4))
    for zone in range(1, 7):
        low, width = int(maxima[zone - 1]) + 1, int(maxima[zone] - maxima[zone - 1])
        right[zone] = max(int(np.log2(30000 * width / 16128)), 0)
        k[zone] = round(63 * 256 * 2 ** int(right[zone]) / width)
        offset = -int(k[zone]) * low
        add[zone] = max(offset.bit_length() - 15, 0)
        b[zone] = offset >> int(add[zone])
    for side in (0, 7):
        k[side], right[side] = rng.integers(-3000, 3000), rng.integers(0, 16)
        b[side], add[side] = rng.integers(-3000, 3000), rng.integers(0, 10)
    curve = np.cumsum(rng.integers(-400, 400, (6, 64)), axis=1) + rng.integers(-6000, 6000, (6, 1))
    line = SegmentLine(
        k=k.astype(np.int32),
        b=b.astype(np.int32),
        add_lsh=add.astype(np.int32),
        sum_rsh=right.astype(np.int32),
        max=np.append(maxima, 32767).astype(np.int32),
    )
    return Lut16(line=line, tables=np.clip(curve, -32768, 32767).astype(np.int16), rounds=bool(rng.integers(2)))

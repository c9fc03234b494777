"""The equations of docs/numerics.md on plain Python integers, one value at a time: a second, independent reading.

Python's integers have no width, so nothing here can overflow; ``v >> s`` floors, as the notation demands. Backends are
compared with this, not with each other alone.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "average_pool",
    "bilinear",
    "compensation",
    "half",
    "requantize",
    "requantize_wide",
    "rescale",
    "sat",
    "segment_table",
    "shl",
    "source_positions",
    "wrap",
]


def sat(bits: int, value: int) -> int:
    """``sat_n``: the nearest value of a signed integer of so many bits."""
    return max(-(1 << (bits - 1)), min((1 << (bits - 1)) - 1, value))


def wrap(bits: int, value: int) -> int:
    """``wrap_n``: the low bits as a signed number."""
    low = value % (1 << bits)
    return low - (1 << bits) if low >= (1 << (bits - 1)) else low


def half(shift: int) -> int:
    """``half(s)``: 2^(s-1), and 0 for s = 0."""
    return 0 if shift == 0 else 1 << (shift - 1)


def shl(value: int, shift: int) -> int:
    """``shl(v, s)``: left for s >= 0, floor right for s < 0."""
    return value * (1 << shift) if shift >= 0 else value >> -shift


def requantize(acc: int, a: int, m: int, r: int, *, bits: int, rounds: bool) -> int:
    """Equation (1)."""
    return sat(bits, (sat(16, acc >> a) * m + (half(r) if rounds else 0)) >> r)


def requantize_wide(acc: int, r: int, *, rounds: bool) -> int:
    """Equation (2)."""
    return sat(32, (acc + (half(r) if rounds else 0)) >> r)


def compensation(a: int, m: int, r: int) -> int:
    """Equation (11): floor(2^(a+r-1) / m + 0.5), and 0 for m = 0.

    2^(a+r-1) / m + 1/2 = (2^(a+r) + m) / (2 m).
    """
    return 0 if m == 0 else ((1 << (a + r)) + m) // (2 * m)


def average_pool(total: int, a: int, m: int, r: int, *, rounds: bool) -> int:
    """Equations (12), ``rounds``, and (13)."""
    if rounds:
        return sat(8, (sat(16, (total + half(a)) >> a) * m + half(r)) >> r)
    return sat(8, (sat(16, (total + compensation(a, m, r)) >> a) * m) >> r)


def rescale(value: int, m: int, r: int, *, bits: int, rounds: bool) -> int:
    """Equations (16), ``rounds``, and (17)."""
    if rounds:
        return sat(bits, (value * m + half(r)) >> r)
    return sat(bits, ((value + compensation(0, m, r)) * m) >> r)


def segment_table(
    x: int, lines: Sequence[tuple[int, int, int, int, int]], tables: Sequence[Sequence[int]], *, rounds: bool
) -> int:
    """Equations (21) to (24); lines are (k, b, add_lsh, sum_rsh, max): left, six zones, right."""

    def rsh(value: int, shift: int) -> int:
        return (value + (half(shift) if rounds else 0)) >> shift

    place = next((i for i, line in enumerate(lines[:7]) if x <= line[4]), 7)
    k, b, add_lsh, sum_rsh, _ = lines[place]
    linear = rsh(k * x + (b << add_lsh), sum_rsh)
    if place in (0, 7):
        return sat(16, linear)
    table = tables[place - 1]
    v = max(0, min(63 * 256, linear))
    i = min(v >> 8, 62)
    return sat(16, rsh((table[i] << 8) + wrap(16, table[i + 1] - table[i]) * (v - 256 * i), 8))


def source_positions(length: int, size: int, *, center: bool, precision: int) -> list[tuple[int, int, int]]:
    """Equations (25) and (26): (i0, i1, f) of every output position."""
    step = length * (1 << precision) // size
    offset = (step - (1 << precision)) >> 1 if center else 0
    found = []
    for j in range(size):
        position = j * step + offset
        first = position >> precision
        fraction = (position % (1 << precision)) >> (precision - 8)
        found.append((max(0, min(length - 1, first)), max(0, min(length - 1, first + 1)), fraction))
    return found


def bilinear(corners: tuple[int, int, int, int], fy: int, fx: int, *, legacy: bool) -> int:
    """Equations (27) and (28); corners are top left, top right, bottom left, bottom right."""
    a, b, c, d = corners
    if legacy:
        top, bottom = (a * (256 - fx) + b * fx) >> 8, (c * (256 - fx) + d * fx) >> 8
        return sat(8, (top * (256 - fy) + bottom * fy) >> 8)
    total = (256 - fy) * ((256 - fx) * a + fx * b) + fy * ((256 - fx) * c + fx * d)
    return sat(8, (total + (1 << 15)) >> 16)

"""Segment tables (lut16) for functions of int16 values: where the zones lie, which lines map them, what they hold.

The construction is ours; the hardware only fixes the form (docs/numerics.md, section 7). Six zones of 63 intervals
cover the inputs between which the function varies: where it is constant up to an end of the range, since it saturates
or is not defined there, the line outside of the zones says so, and none of them bends around the corner. At a pole one
zone ends and the next begins; beside it, where the outputs saturate, an interval ends where saturation does. The widths
follow the function's curvature, since linear interpolation errs by ``h**2 / 8 * |f''|``: intervals of a length
proportional to ``|f''|**-0.5`` make the error even.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bpu_kernels.dtypes import qint16
from bpu_kernels.ops.lut import ENTRIES, ZONES, Lut16, SegmentLine

__all__ = ["affine_table", "segment_table"]

_FAR = 2.0**30
"""An offset in steps that no multiple of an int16 value with a 15-bit factor can bring back into range."""
_SAMPLES = 2049
"""Places at which its curvature is estimated."""
_LEAP = 2**14
"""Difference in steps of the output, from one step of the input to the next, that is a leap and not a slope."""


def _real_steps(function: Callable[[Tensor], Tensor], x_scale: float, scale: float) -> Callable[[Tensor], Tensor]:
    """Return the function from steps to unrounded steps, within the output's range; 0 where it is not defined."""

    def evaluate(steps: Tensor) -> Tensor:
        real = function(steps.to(torch.float64) * x_scale) / scale
        return torch.nan_to_num(real).clamp(qint16.min, qint16.max)

    return evaluate


def varying_range(rises: Tensor) -> tuple[int, int]:
    """Return first and last of the steps outside of which the rounded function is constant.

    They lie so far apart that all zones between them have their least length.

    Args:
        rises: from every step of int16 to the next.
    """
    changes = rises.nonzero().flatten()
    varies = len(changes) > 0
    first = int(changes[0]) + 1 + qint16.min if varies else qint16.max
    last = int(changes[-1]) + qint16.min if varies else qint16.min
    shortest = ENTRIES * ZONES
    if last - first < shortest:
        first = min(max(min(first, last), qint16.min + 1), qint16.max - shortest)
        last = first + shortest
    return first, last


def _rounded(values: Tensor) -> Tensor:
    return torch.floor(values + 0.5).clamp(qint16.min, qint16.max)


def leaps(rises: Tensor, low: int, high: int) -> list[int]:
    """Return the steps, ascending, behind which a function leaps further than any slope: five at most, at its poles.

    They become borders of zones, since interpolation between two entries cannot follow.
    """
    between = rises[low - qint16.min : high - qint16.min]
    return [low + index for index in (between.abs() > _LEAP).nonzero().flatten().tolist()][: ZONES - 1]


class Piece:
    """The steps from one leap to the next, and the curvature of the function between them.

    Args:
        real_steps: the function.
        low: its first step.
        high: its last one, not below the first.
        leaps: whether the function leaps behind the last one.
    """

    def __init__(self, real_steps: Callable[[Tensor], Tensor], low: int, high: int, leaps: bool) -> None:
        self.low, self.high = low, high
        self.reaches = float(high) if leaps else math.inf
        """Up to where the function goes on as it is on these steps."""
        self.steps = torch.linspace(low, high, min(_SAMPLES, high - low + 1), dtype=torch.float64)
        self.density = torch.zeros_like(self.steps)
        if high - low > ENTRIES:
            beside = self.steps[1] - self.steps[0]
            values = real_steps(torch.cat((self.steps[:1] - beside, self.steps, self.steps[-1:] + beside)))
            curvature = (values[2:] - 2 * values[1:-1] + values[:-2]).abs()  # bends at the ends count too
            self.density = torch.where(curvature > _LEAP, 0.0, curvature).sqrt()

    def error(self, zones: int) -> float:
        """Return a measure of the error of linear interpolation by so many zones."""
        return float(self.density.sum()) / zones

    def zones(self, count: int) -> list[tuple[int, int]]:
        """Return first and last step of each of so many zones."""
        density = self.density + self.density.mean() * 0.25 + 1e-12  # the mean keeps every zone of finite length
        share = torch.cumsum(density, 0) / density.sum()
        borders = [int(self.steps[int(torch.searchsorted(share, zone / count))]) for zone in range(1, count)]
        border = self.low - 1
        for zone in range(len(borders)):
            border = borders[zone] = max(borders[zone], border + ENTRIES)
        last = [*(min(b, self.high - ENTRIES * (count - 1 - i)) for i, b in enumerate(borders)), self.high]
        return list(zip([self.low, *(border + 1 for border in last[:-1])], last, strict=True))

    def values_at(self, real_steps: Callable[[Tensor], Tensor], places: Tensor) -> Tensor:
        """Return the function at places of a zone; what lies behind the leap continues it as a straight line."""
        inside = places.clamp(max=self.reaches)
        before, end = real_steps(torch.tensor([max(self.low, self.reaches - 1), self.reaches], dtype=torch.float64))
        values: Tensor = real_steps(inside) + (places - inside) * (end - before)
        return values


def pieces_of(
    real_steps: Callable[[Tensor], Tensor], rises: Tensor, low: int, high: int
) -> list[tuple[Piece, list[tuple[int, int]]]]:
    """Return the pieces between the leaps with their zones, six in all, from one step to another."""
    last = [*leaps(rises, low, high), high]
    pieces = [
        Piece(real_steps, *ends, leaps=ends[1] != high)
        for ends in zip([low, *(step + 1 for step in last[:-1])], last, strict=True)
    ]
    counts = [1] * len(pieces)
    for _ in range(ZONES - len(pieces)):  # where the error is largest; of nearly equal ones to the right, for x > 0
        errors = [piece.error(count) for piece, count in zip(pieces, counts, strict=True)]
        counts[max(index for index, error in enumerate(errors) if error >= 0.9 * max(errors))] += 1
    return [(piece, piece.zones(count)) for piece, count in zip(pieces, counts, strict=True)]


def run_of(values: Tensor, low: int, high: int) -> float:
    """Return the length that the 63 intervals of a zone shall cover, so that one ends where saturation begins or ends.

    Beside a pole an interval around that corner would cut it off by many steps.
    """
    within, run = values[low - qint16.min : high + 1 - qint16.min], float(max(high - low, 1))
    begins, ends = (abs(value) >= qint16.max for value in within[[0, -1]].tolist())
    if begins == ends:
        return run
    corner = int((within.abs() >= qint16.max).to(torch.int8).diff().abs().argmax())
    at, slope = (corner + 1, 1) if begins else (corner, -1)  # the first step that is not saturated, and onwards
    if not 0 <= at + slope < len(within):
        return run
    per_step = float((within[at] - within[at + slope]).abs())
    limit = qint16.max if within[at] > 0 else qint16.min
    place = at - slope * min(float((limit - within[at]).abs()) / max(per_step, 1e-9), 1.0)
    intervals = int(place / run * (ENTRIES - 1))
    return place / intervals * (ENTRIES - 1) if intervals else run


def segment_table(function: Callable[[Tensor], Tensor], x_scale: float, scale: float, device: torch.device) -> Lut16:
    """Return the table of ``y = function(x * x_scale) / scale`` on int16 steps.

    Where the function is not defined, the table holds 0. At a pole one zone ends and another begins, so the outputs
    beside it saturate, each with its sign; more than five poles are followed by interpolation only.

    Args:
        function: elementwise, accepts float64.
        x_scale: scale of the input.
        scale: scale of the output.
        device: where the tensors shall lie.
    """
    real_steps = _real_steps(function, x_scale, scale)
    values = real_steps(torch.arange(qint16.min, qint16.max + 1, dtype=torch.float64))
    rounded = _rounded(values)
    rises, ends = rounded.diff(), [int(rounded[0]), int(rounded[-1])]
    begin, end = varying_range(rises)
    lines: list[tuple[int, int, int, int, int]] = [(0, ends[0], 0, 0, begin - 1)]
    tables = []
    for piece, zones in pieces_of(real_steps, rises, begin, end):
        for low, high in zones:
            k, shift = _slope((ENTRIES - 1) * 256, run_of(values, low, high))
            offset = -k * low
            add = max(0, abs(offset).bit_length() - 15)
            b = offset >> add
            # Positions as the hardware computes them, so that each entry is sampled where it will be looked up.
            centre = (torch.arange(ENTRIES, dtype=torch.float64) * 256 * 2.0**shift - (b << add)) / k
            tables.append(_rounded(piece.values_at(real_steps, centre)))
            lines.append((k, b, add, shift, high))
    lines.append((0, ends[1], 0, 0, qint16.max))
    columns = [torch.tensor(column, dtype=torch.int32, device=device) for column in zip(*lines, strict=True)]
    line = SegmentLine(k=columns[0], b=columns[1], add_lsh=columns[2], sum_rsh=columns[3], max=columns[4])
    return Lut16(line=line, tables=_without_leaps(torch.stack(tables)).to(torch.int16).to(device))


def _without_leaps(tables: Tensor) -> Tensor:
    """Bring neighbouring entries within 15 bits of each other, as interpolation needs: a leap in a zone takes two."""
    if bool((tables.diff(dim=1).abs() <= qint16.max).all()):
        return tables
    columns = [tables[:, 0]]
    for column in tables.unbind(1)[1:]:
        columns.append(column.clamp(columns[-1] - qint16.max, columns[-1] + qint16.max))
    return torch.stack(columns, 1)


def _slope(rise: int, run: float) -> tuple[int, int]:
    """Return (k, shift) with ``k * 2**-shift`` just below ``rise / run`` and k within 15 bits."""
    shift = 0
    while int((rise << (shift + 1)) / run) < 1 << 15 and shift < 30:
        shift += 1
    return int((rise << shift) / run), shift


def affine_table(factor: float, offset: float, device: torch.device) -> Lut16:
    """Return the table of ``y = factor * x + offset`` on int16 steps: one line for all inputs.

    Factor and offset keep 15 bits each: the result is within ``0.5 + |factor| + |offset| * 2**-15`` of the exact one.
    """
    offset = min(max(offset, -_FAR), _FAR)
    shift = 0
    while shift < 15 and abs(factor) * 2.0 ** (shift + 1) < 2**15 and abs(offset) * 2.0 ** (shift + 1) < 2**30:
        shift += 1
    k = round(min(max(factor * 2.0**shift, -qint16.max), qint16.max))
    add, whole = 0, offset * 2.0**shift
    while abs(round(whole / 2.0**add)) > qint16.max:
        add += 1
    b = round(whole / 2.0**add)
    entries = (k, b, add, shift, qint16.min)
    columns = [torch.full((ZONES + 2,), entry, dtype=torch.int32, device=device) for entry in entries]
    line = SegmentLine(k=columns[0], b=columns[1], add_lsh=columns[2], sum_rsh=columns[3], max=columns[4])
    return Lut16(line=line, tables=torch.zeros(ZONES, ENTRIES, dtype=torch.int16, device=device))

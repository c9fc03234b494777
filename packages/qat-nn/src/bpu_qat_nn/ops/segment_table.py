"""Segment tables (lut16) for functions of int16 values: where the zones lie, which lines map them, what they hold.

The construction is ours; the hardware only fixes the form (docs/numerics.md, section 7). Six zones of 63 intervals
cover the inputs between which the function varies: where it is constant up to an end of the range, since it saturates
or is not defined there, the line outside of the zones says so, and none of them bends around the corner. Their widths
follow the function's curvature, since linear interpolation errs by ``h**2 / 8 * |f''|``: intervals of a length
proportional to ``|f''|**-0.5`` make the error even.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bpu_kernels.dtypes import qint16
from bpu_kernels.ops.lut import ENTRIES, ZONES, Lut16, SegmentLine

__all__ = ["affine_table", "segment_table"]

_FAR = 2.0**30
"""An offset in steps that no multiple of an int16 value with a 15-bit factor can bring back into range."""
_SPACING = 32
"""Steps between the places where a function is looked at first."""
_SAMPLES = 2049
"""Places at which its curvature is estimated."""


def _real_steps(function: Callable[[Tensor], Tensor], x_scale: float, scale: float) -> Callable[[Tensor], Tensor]:
    """Return the function from steps to unrounded steps, within the output's range; 0 where it is not defined."""

    def evaluate(steps: Tensor) -> Tensor:
        real = function(steps.to(torch.float64) * x_scale) / scale
        return torch.nan_to_num(real).clamp(qint16.min, qint16.max)

    return evaluate


def varying_range(real_steps: Callable[[Tensor], Tensor]) -> tuple[int, int]:
    """Return first and last of the steps outside of which the rounded function is constant.

    They lie so far apart that all zones between them have their least length.
    """
    first = _end_of_plateau(real_steps, qint16.min, 1) + 1
    last = _end_of_plateau(real_steps, qint16.max, -1) - 1
    shortest = ENTRIES * ZONES
    if last - first < shortest:
        first = min(max(min(first, last), qint16.min + 1), qint16.max - shortest)
        last = first + shortest
    return first, last


def _end_of_plateau(real_steps: Callable[[Tensor], Tensor], begin: int, sign: int) -> int:
    """Return the last step, from an end of the range inwards, that has the value which the function has there."""
    for spacing in (_SPACING, 1):
        count = (qint16.max - qint16.min) // _SPACING if spacing > 1 else _SPACING
        steps = begin + sign * spacing * torch.arange(count + 1, dtype=torch.float64)
        values = _rounded(real_steps, steps)
        same = int((values != values[0]).to(torch.int8).argmax()) if (values != values[0]).any() else len(steps)
        begin += sign * spacing * (same - 1)
    return begin


def _rounded(real_steps: Callable[[Tensor], Tensor], steps: Tensor) -> Tensor:
    return torch.floor(real_steps(steps) + 0.5).clamp(qint16.min, qint16.max).to(torch.int64)


def zone_borders(real_steps: Callable[[Tensor], Tensor], low: int, high: int) -> list[int]:
    """Return the last step of each zone from one step to another, ascending."""
    steps = torch.linspace(low, high, _SAMPLES, dtype=torch.float64)
    around = torch.cat((2 * steps[:1] - steps[1], steps, 2 * steps[-1:] - steps[-2]))  # bends at the ends count too
    values = real_steps(around)
    curvature = (values[2:] - 2 * values[1:-1] + values[:-2]).abs()
    density = curvature.sqrt() + curvature.sqrt().mean() * 0.25 + 1e-12  # the mean keeps every zone of finite length
    share = torch.cumsum(density, 0) / density.sum()
    borders = [int(steps[int(torch.searchsorted(share, zone / ZONES))]) for zone in range(1, ZONES)]
    border = low
    for zone in range(len(borders)):  # a zone holds at least 64 steps, so that its slope fits
        border = borders[zone] = max(borders[zone], border + ENTRIES)
    return [*(min(b, high - ENTRIES * (ZONES - 1 - i)) for i, b in enumerate(borders)), high]


def segment_table(function: Callable[[Tensor], Tensor], x_scale: float, scale: float, device: torch.device) -> Lut16:
    """Return the table of ``y = function(x * x_scale) / scale`` on int16 steps.

    Where the function is not defined, the table holds 0. At a pole, where it leaps through the whole range, the table
    passes through the middle.

    Args:
        function: elementwise, accepts float64.
        x_scale: scale of the input.
        scale: scale of the output.
        device: where the tensors shall lie.
    """
    real_steps = _real_steps(function, x_scale, scale)
    begin, end = varying_range(real_steps)
    last = zone_borders(real_steps, begin, end)
    first = [begin, *(border + 1 for border in last[:-1])]
    lines: list[tuple[int, int, int, int, int]] = []
    tables = []
    ends = _rounded(real_steps, torch.tensor([qint16.min, qint16.max])).tolist()
    lines.append((0, ends[0], 0, 0, begin - 1))
    for low, high in zip(first, last, strict=True):
        k, shift = _slope((ENTRIES - 1) * 256, high - low)
        offset = -k * low
        add = max(0, abs(offset).bit_length() - 15)
        b = offset >> add
        # Positions as the hardware computes them, so that each entry is sampled where it will be looked up.
        centre = (torch.arange(ENTRIES, dtype=torch.float64) * 256 * 2.0**shift - (b << add)) / k
        tables.append(_rounded(real_steps, centre))
        lines.append((k, b, add, shift, high))
    lines.append((0, ends[1], 0, 0, qint16.max))
    columns = [torch.tensor(column, device=device) for column in zip(*lines, strict=True)]
    line = SegmentLine(k=columns[0], b=columns[1], add_lsh=columns[2], sum_rsh=columns[3], max=columns[4])
    return Lut16(line=line, tables=_without_leaps(torch.stack(tables)).to(torch.int16).to(device))


def _without_leaps(tables: Tensor) -> Tensor:
    """Bring neighbouring entries within 15 bits of each other, as interpolation needs: a pole's leap takes two."""
    columns = [tables[:, 0]]
    for column in tables.unbind(1)[1:]:
        columns.append(column.clamp(columns[-1] - qint16.max, columns[-1] + qint16.max))
    return torch.stack(columns, 1)


def _slope(rise: int, run: int) -> tuple[int, int]:
    """Return (k, shift) with ``k * 2**-shift`` just below ``rise / run`` and k within 15 bits."""
    shift = 0
    while (rise << (shift + 1)) // run < 1 << 15 and shift < 30:
        shift += 1
    return (rise << shift) // run, shift


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
    columns = [torch.full((ZONES + 2,), value, device=device) for value in (k, b, add, shift, qint16.min)]
    line = SegmentLine(k=columns[0], b=columns[1], add_lsh=columns[2], sum_rsh=columns[3], max=columns[4])
    return Lut16(line=line, tables=torch.zeros(ZONES, ENTRIES, dtype=torch.int16, device=device))

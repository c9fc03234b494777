"""Segment tables (lut16) for functions of int16 values: where the zones lie, which lines map them, what they hold.

The construction is ours; the hardware only fixes the form (docs/numerics.md, section 7). Six zones of 63 intervals
cover the input range; their widths follow the function's curvature, since linear interpolation errs by
``h**2 / 8 * |f''|``: intervals of a length proportional to ``|f''|**-0.5`` make the error even. Only the two ends of
the range lie outside the zones.
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


def _real_steps(function: Callable[[Tensor], Tensor], x_scale: float, scale: float) -> Callable[[Tensor], Tensor]:
    """Return the function from steps to unrounded steps, within the output's range; 0 where it is not defined."""

    def evaluate(steps: Tensor) -> Tensor:
        real = function(steps.to(torch.float64) * x_scale) / scale
        return torch.nan_to_num(real).clamp(qint16.min, qint16.max)

    return evaluate


def zone_borders(real_steps: Callable[[Tensor], Tensor]) -> list[int]:
    """Return the last step of each zone, ascending; the last is 32767."""
    steps = torch.linspace(qint16.min, qint16.max, 2049, dtype=torch.float64)
    values = real_steps(steps)
    curvature = (values[2:] - 2 * values[1:-1] + values[:-2]).abs()
    density = curvature.sqrt() + curvature.sqrt().mean() * 0.25 + 1e-12  # the mean keeps every zone of finite length
    share = torch.cumsum(density, 0) / density.sum()
    borders = [int(steps[1 + int(torch.searchsorted(share, zone / ZONES))]) for zone in range(1, ZONES)]
    low = qint16.min
    for zone in range(len(borders)):  # a zone holds at least 64 steps, so that its slope fits
        low = borders[zone] = max(borders[zone], low + ENTRIES)
    return [*(min(b, qint16.max - ENTRIES * (ZONES - 1 - i)) for i, b in enumerate(borders)), qint16.max]


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

    def sample(steps: Tensor) -> Tensor:
        return torch.floor(real_steps(steps) + 0.5).clamp(qint16.min, qint16.max).to(torch.int64)

    last = zone_borders(real_steps)
    first = [qint16.min, *(border + 1 for border in last[:-1])]
    lines: list[tuple[int, int, int, int, int]] = []
    tables = []
    ends = sample(torch.tensor([qint16.min, qint16.max])).tolist()
    lines.append((0, ends[0], 0, 0, qint16.min))
    for low, high in zip(first, last, strict=True):
        k, shift = _slope((ENTRIES - 1) * 256, high - low)
        offset = -k * low
        add = max(0, abs(offset).bit_length() - 15)
        b = offset >> add
        # Positions as the hardware computes them, so that each entry is sampled where it will be looked up.
        centre = (torch.arange(ENTRIES, dtype=torch.float64) * 256 * 2.0**shift - (b << add)) / k
        tables.append(sample(centre))
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

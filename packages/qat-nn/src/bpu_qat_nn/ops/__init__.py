"""OPS: every float module with an integer form, and the row that says how it gets it."""

from __future__ import annotations

from torch import nn

from ..op import OpRow
from . import (
    choose,
    clip,
    compare,
    correlation,
    dropout,
    extremum,
    functional,
    pad,
    pillars,
    resize,
    sample,
    select,
    stubs,
    table,
    unfold,
)
from .composites import attention, division, gates, lstm, normalization, softmax
from .pooling import adaptive_average, adaptive_max, pool, pool3d
from .weighted import batch_norm, conv, conv_transpose, linear

__all__ = ["OPS", "ROWS"]

ROWS: tuple[OpRow, ...] = (
    *stubs.ROWS,
    *conv.ROWS,
    *conv_transpose.ROWS,
    *linear.ROWS,
    *batch_norm.ROWS,
    *functional.ROWS,
    *clip.ROWS,
    *table.ROWS,
    *pool.ROWS,
    *adaptive_average.ROWS,
    *resize.ROWS,
    *pad.ROWS,
    *dropout.ROWS,
    *extremum.ROWS,
    *softmax.ROWS,
    *normalization.ROWS,
    *attention.ROWS,
    *division.ROWS,
    *gates.ROWS,
    *pool3d.ROWS,
    *adaptive_max.ROWS,
    *unfold.ROWS,
    *lstm.ROWS,
    *correlation.ROWS,
    *compare.ROWS,
    *select.ROWS,
    *choose.ROWS,
    *sample.ROWS,
    *pillars.ROWS,
)

OPS: dict[type[nn.Module], OpRow] = {float_type: row for row in ROWS for float_type in row.floats}
"""Float module type (exactly that type) -> row."""

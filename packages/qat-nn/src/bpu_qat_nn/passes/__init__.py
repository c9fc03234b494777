"""Passes that raise the accuracy of a prepared model without training; after each, validation equals the board still.

========================  ==============================  =====================================================
pass                      when                            what it changes
========================  ==============================  =====================================================
equalize                  before calibration              moves scale between layers, per channel
reestimate_batch_norm     before or in training (WithBN)  running statistics of BatchNorm
round_weights             after calibration               weights, each to one of its two neighbouring steps
correct_bias              after calibration, the last     biases
========================  ==============================  =====================================================

All take calibration batches: a tensor, or a tuple of what forward takes, each.
"""

from __future__ import annotations

from .batch_norm import reestimate_batch_norm
from .bias import CorrectedBias, correct_bias
from .equalize import Equalized, equalize
from .rounding import RoundedWeights, round_weights

__all__ = [
    "CorrectedBias",
    "Equalized",
    "RoundedWeights",
    "correct_bias",
    "equalize",
    "reestimate_batch_norm",
    "round_weights",
]

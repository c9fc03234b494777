"""Passes that raise the accuracy of a prepared model without training; after each, validation equals the board still.

========================  ==============================  =====================================================
pass                      when                            what it changes
========================  ==============================  =====================================================
equalize                  before calibration              moves scale between layers, per channel
reestimate_batch_norm     before or in training (WithBN)  running statistics of BatchNorm
correct_bias              after calibration               biases
round_weights             after calibration               weights, each to a neighbouring step, and biases
========================  ==============================  =====================================================

All take calibration batches: a tensor, or a tuple of what forward takes, each. ``choose_int16`` changes nothing: it
measures which activations to raise to 16 bits, before the model is prepared.
"""

from __future__ import annotations

from .batch_norm import reestimate_batch_norm
from .bias import CorrectedBias, correct_bias
from .equalize import Equalized, equalize
from .int16 import Int16Choice, Raised, choose_int16
from .rounding import RoundedWeights, round_weights

__all__ = [
    "CorrectedBias",
    "Equalized",
    "Int16Choice",
    "Raised",
    "RoundedWeights",
    "choose_int16",
    "correct_bias",
    "equalize",
    "reestimate_batch_norm",
    "round_weights",
]

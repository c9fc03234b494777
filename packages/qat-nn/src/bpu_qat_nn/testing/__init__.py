"""For tests of this and dependent packages: a model per operator, whole nets, and what calibrates and trains them."""

from __future__ import annotations

from .case import OperatorCase
from .cases import CASES
from .nets import NETS, NetCase
from .stages import assert_exact, calibrate, differing, prepared, real_inputs, train_steps, validate

__all__ = [
    "CASES",
    "NETS",
    "NetCase",
    "OperatorCase",
    "assert_exact",
    "calibrate",
    "differing",
    "prepared",
    "real_inputs",
    "train_steps",
    "validate",
]

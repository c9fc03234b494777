"""Whether batch normalization is folded before training or kept until conversion."""

from __future__ import annotations

from bpu_qat_nn import QATMode as QATMode
from bpu_qat_nn import get_qat_mode as get_qat_mode
from bpu_qat_nn import set_qat_mode as set_qat_mode

from .unavailable import explain_missing

__getattr__ = explain_missing(__name__)

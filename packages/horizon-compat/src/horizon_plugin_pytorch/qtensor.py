"""QTensor, a tensor that knows its scale."""

from __future__ import annotations

from bpu_qat_nn import QTensor as QTensor

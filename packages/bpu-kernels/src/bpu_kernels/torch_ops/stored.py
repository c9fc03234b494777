"""Which type of torch stores which integer type of the hardware."""

from __future__ import annotations

import torch

from ..dtypes import QuantDType, qint8, qint16, qint32

__all__ = ["QUANT_DTYPES", "TORCH_DTYPES"]

QUANT_DTYPES: dict[torch.dtype, QuantDType] = {torch.int8: qint8, torch.int16: qint16, torch.int32: qint32}
TORCH_DTYPES: dict[QuantDType, torch.dtype] = {dtype: stored for stored, dtype in QUANT_DTYPES.items()}

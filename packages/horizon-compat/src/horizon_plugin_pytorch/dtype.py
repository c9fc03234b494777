"""The integer types of the BPU."""

from __future__ import annotations

from bpu_kernels import QuantDType as QuantDType
from bpu_kernels import qinfo as qinfo
from bpu_kernels import qint8 as qint8
from bpu_kernels import qint16 as qint16
from bpu_kernels import qint32 as qint32

from .unavailable import explain_missing

__getattr__ = explain_missing(__name__)

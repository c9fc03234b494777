"""The integer types of the BPU: bits, range and the numpy type that stores them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import BpuKernelsError

__all__ = ["DTYPES", "QuantDType", "qinfo", "qint8", "qint16", "qint32", "quant_dtype"]


@dataclass(frozen=True, eq=False)
class QuantDType:
    """A signed integer type; there is one object of each.

    Printed and compared by its name: the text ``"qint8"`` equals the type, and may be given wherever one is expected.
    """

    name: str
    """``"qint8"``, ``"qint16"`` or ``"qint32"``."""
    bits: int
    """Width in bits, sign included."""

    @property
    def min(self) -> int:
        """Smallest value, ``-2**(bits - 1)``."""
        return -(1 << (self.bits - 1))

    @property
    def max(self) -> int:
        """Largest value, ``2**(bits - 1) - 1``."""
        return (1 << (self.bits - 1)) - 1

    @property
    def numpy(self) -> np.dtype[np.signedinteger]:
        """The numpy type that holds exactly this range."""
        return np.dtype(f"int{self.bits}")

    def __eq__(self, other: object) -> bool:
        return self is other or other == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return quant_dtype, (self.name,)  # copies and pickles are the same object, so `is` compares types

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return self.name


qint8 = QuantDType("qint8", 8)
qint16 = QuantDType("qint16", 16)
qint32 = QuantDType("qint32", 32)

DTYPES: dict[str, QuantDType] = {dtype.name: dtype for dtype in (qint8, qint16, qint32)}


def quant_dtype(dtype: object) -> QuantDType:
    """Return the type that ``dtype`` names.

    Args:
        dtype: a ``QuantDType``; or anything whose text ends in ``qint8``, ``qint16`` or ``qint32``, as ``"qint8"`` and
            ``torch.qint8`` do; or ``int8``, ``int16``, ``int32`` in the same ways (``numpy.dtype("int8")``).

    Raises:
        BpuKernelsError: any other value.

    >>> quant_dtype("qint16").max
    32767
    """
    if isinstance(dtype, QuantDType):
        return dtype
    name = str(dtype).rsplit(".", 1)[-1]
    found = DTYPES.get(name if name.startswith("q") else f"q{name}")
    if found is None:
        raise BpuKernelsError(f"expected one of the types {', '.join(DTYPES)}, got {dtype!r}")
    return found


def qinfo(dtype: object) -> tuple[int, int]:
    """Return the (smallest, largest) value of an integer type.

    >>> qinfo("qint8")
    (-128, 127)
    """
    found = quant_dtype(dtype)
    return found.min, found.max

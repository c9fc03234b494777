"""Contents: whether the memory of CPU tensors holds what it held, told for all tensors of a model in one call."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from torch import Tensor

from ..engine.library import load_library
from ..errors import BpuKernelsError

__all__ = ["Contents"]


class Contents:
    """The bytes of dense CPU tensors as they were when this was made.

    Raises:
        BpuKernelsError: there is no native engine, which compares them.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        library = load_library()
        if isinstance(library, str):
            raise BpuKernelsError(library)
        self._library, self._tensors = library, tuple(tensors)
        self._then = [tensor.detach().clone() for tensor in tensors]
        self._places = list(map(_place, tensors))
        count = len(self._places)
        self._now = (ctypes.c_void_p * count)(*(tensor.data_ptr() for tensor in tensors))
        self._copies = (ctypes.c_void_p * count)(*(copy.data_ptr() for copy in self._then))
        self._bytes = (ctypes.c_int64 * count)(*(tensor.numel() * tensor.element_size() for tensor in tensors))

    def unchanged(self) -> bool:
        """Whether every tensor lies where and as it lay, and holds the same bytes."""
        return list(map(_place, self._tensors)) == self._places and bool(
            self._library.bpu_same_blocks(self._now, self._copies, self._bytes, len(self._places))
        )


def _place(tensor: Tensor) -> tuple[object, ...]:
    """Return where a tensor lies and how: ``tensor.data = tensor.data.t()`` changes neither address nor bytes."""
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()

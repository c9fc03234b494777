"""Derived: keeps what was computed from scales and weights, and computes it again when one of them has changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bpu_kernels.dtypes import QuantDType

from .capture.captured_tensor import capturing, uncaptured

__all__ = ["Derived", "Scaled", "is_dense", "settings_of"]

T = TypeVar("T")

_KEPT = 16
"""So many different inputs are remembered: a head shared by the levels of a pyramid is called once per level."""


class Scaled(Protocol):
    """What has a scale and a type: a QTensor, an Output."""

    @property
    def scale(self) -> Tensor:
        """Scale."""

    @property
    def dtype(self) -> QuantDType:
        """Type."""


class Derived:
    """A small memory of results that depend on the contents of tensors, for converted modules.

    Results also depend on how the module is set; a module whose settings change calls ``forget``.

    On the CPU a tensor counts as unchanged while its contents are. Elsewhere, where looking would wait for the device,
    it does while its storage and its version counter are the same; writing through ``tensor.data`` changes no version,
    so there use ``tensor.copy_`` and the like. Modules in training mode, where weights change with every step, remember
    nothing. Copies and pickles of a Derived are empty.

    Args:
        keeps: whether anything is remembered.
        by_contents: remember only what depends on contents, that is, of tensors on the CPU: for fake quantizers, which
            write their scales through ``tensor.data``.
    """

    def __init__(self, keeps: bool = True, by_contents: bool = False) -> None:
        self.keeps, self.by_contents = keeps, by_contents
        self._entries: list[tuple[tuple[object, ...], list[_Seen | None], Any]] = []

    def get(self, sources: Sequence[Tensor | Scaled | None], build: Callable[[], T], *extra: object) -> T:
        """Return what ``build`` gave for these sources, calling it if need be.

        Args:
            sources: what the result depends on: all of a tensor, scale and type of a quantized value.
            build: computes the result from them.
            extra: whatever else it depends on; compared by equality.
        """
        if not self.keeps:
            return build()
        tensors = [_tensor_of(each) for each in sources]
        if self.by_contents and any(t is not None and t.device.type != "cpu" for t in tensors):
            return build()
        key = (*extra, *(None if each is None else each.dtype for each in sources))
        if capturing():
            with uncaptured():
                return build() if _is_symbolic(extra) else self._get(tensors, build, key)
        return self._get(tensors, build, key)

    def forget(self) -> None:
        """Compute everything again when it is next asked for."""
        self._entries.clear()

    def _get(self, sources: Sequence[Tensor | None], build: Callable[[], T], extra: tuple[object, ...]) -> T:
        for index, (known, seen, result) in enumerate(self._entries):
            if known == extra and all(map(_unchanged, seen, sources)):
                self._entries.append(self._entries.pop(index))  # what is used stays
                found: T = result
                return found
        built = build()
        self._entries.append((extra, [None if each is None else _Seen(each) for each in sources], built))
        del self._entries[:-_KEPT]
        return built

    def __reduce__(self) -> tuple[type[Derived], tuple[bool, bool]]:
        return Derived, (self.keeps, self.by_contents)


def settings_of(function: object) -> tuple[object, ...]:
    """Return the plain attributes of what defines an operator, a float module: they are set past the operator."""
    return tuple(value for name, value in getattr(function, "__dict__", {}).items() if not name.startswith("_"))


def _tensor_of(source: Any) -> Tensor | None:
    """Return the scale of what has one, else the tensor itself."""
    tensor: Tensor | None = getattr(source, "scale", source)
    return tensor


def _is_symbolic(extra: tuple[object, ...]) -> bool:
    """Whether a length is a symbol of torch.export, which means nothing after it."""
    return any(isinstance(leaf, torch.SymInt) for leaf in tree_leaves(extra))


class _Seen:
    """A tensor as it was."""

    def __init__(self, tensor: Tensor) -> None:
        self.on_cpu = tensor.device.type == "cpu"
        # A copy on the CPU; elsewhere the tensor itself, which keeps its address from being given to another.
        self.tensor = tensor.detach().clone() if self.on_cpu else tensor
        self.version = _version(tensor)
        self.memory = _Memory(tensor, self.tensor) if self.on_cpu and is_dense(tensor) else None

    def same(self, tensor: Tensor) -> bool:
        """Whether a tensor has this one's contents."""
        if self.memory is not None and self.memory.is_of(tensor):
            return self.memory.same()
        if self.tensor.shape != tensor.shape or self.tensor.dtype != tensor.dtype:
            return False
        if self.on_cpu:
            return tensor.device.type == "cpu" and torch.equal(self.tensor, tensor)
        return self.tensor.data_ptr() == tensor.data_ptr() and self.version == _version(tensor)


class _Memory:
    """The bytes of a dense CPU tensor as they were, and as they are: compared several times faster than tensors are."""

    def __init__(self, tensor: Tensor, copy: Tensor) -> None:
        self.pointer, self.dtype = tensor.data_ptr(), tensor.dtype
        self.shape, self.stride = tensor.shape, tensor.stride()
        now, then = _bytes(tensor), _bytes(copy)
        words = now.size // _WORD * _WORD if now.size > _FEW_BYTES else 0
        self.words, self.words_then = now[:words].view(np.int64), then[:words].view(np.int64)
        self.rest, self.rest_then = now[words:], then[words:].tobytes()

    def is_of(self, tensor: Tensor) -> bool:
        """Whether a tensor lies in this memory, in this way."""
        return (
            tensor.data_ptr() == self.pointer
            and tensor.shape == self.shape
            and tensor.stride() == self.stride
            and tensor.dtype == self.dtype
        )

    def same(self) -> bool:
        """Whether the bytes are as they were."""
        unchanged = self.rest.tobytes() == self.rest_then
        return unchanged and (not self.words.size or bool((self.words == self.words_then).all()))


_WORD = 8
_FEW_BYTES = 4096
"""Up to this many are compared as text."""


def _bytes(tensor: Tensor) -> np.ndarray:
    """Return the memory of a dense tensor, which stays its own as long as the array is there."""
    flat = torch.as_strided(tensor.detach(), (tensor.numel(),), (1,))
    return flat.view(torch.uint8).numpy()


def is_dense(tensor: Tensor) -> bool:
    """Whether an ordinary tensor's elements fill their memory, in an order of axes that a copy keeps."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    ordinary = type(tensor) in (Tensor, nn.Parameter) and tensor.numel() > 0
    return ordinary and (
        tensor.is_contiguous()
        or (tensor.dim() in formats and tensor.is_contiguous(memory_format=formats[tensor.dim()]))
    )


def _unchanged(seen: _Seen | None, tensor: Tensor | None) -> bool:
    return seen.same(tensor) if seen is not None and tensor is not None else seen is None and tensor is None


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version

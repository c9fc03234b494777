"""Derived: keeps what was computed from tensors, and computes it again when one of them is another or has changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = ["Derived"]

T = TypeVar("T")

_KEPT = 16
"""So many different inputs are remembered: a head shared by the levels of a pyramid is called once per level."""


class Derived:
    """A small memory of results that depend on the contents of tensors, for converted modules.

    A tensor counts as unchanged while its storage and its version counter are the same, and, if it is a single number
    on the CPU, its value. Nothing waits for a GPU. Writing through ``tensor.data`` changes no version, so modules under
    training, where that is common (weight averaging), remember nothing. Copies and pickles of a Derived are empty.

    Args:
        keeps: whether anything is remembered.
    """

    def __init__(self, keeps: bool = True) -> None:
        self.keeps = keeps
        self._entries: list[tuple[tuple[Any, ...], Sequence[Tensor | None], Any]] = []

    def get(self, sources: Sequence[Tensor | None], build: Callable[[], T], *extra: object) -> T:
        """Return what ``build`` gave for these sources, calling it if need be.

        Args:
            sources: tensors that the result depends on.
            build: computes the result from them.
            extra: whatever else it depends on; compared by equality.
        """
        if not self.keeps or torch.compiler.is_compiling():
            return build()
        key = (*map(_state, sources), *extra)
        for known, _, result in self._entries:
            if known == key:
                found: T = result
                return found
        built = build()
        self._entries.append((key, tuple(sources), built))  # holding the sources keeps their addresses theirs
        del self._entries[:-_KEPT]
        return built

    def __reduce__(self) -> tuple[type[Derived], tuple[bool]]:
        return Derived, (self.keeps,)


def _state(tensor: Tensor | None) -> object:
    if tensor is None:
        return None
    value = float(tensor) if tensor.numel() == 1 and tensor.device.type == "cpu" else None
    version = -1 if tensor.is_inference() else tensor._version
    return tensor.data_ptr(), version, tensor.shape, value

"""How many tensors a call returns, where its own arguments say so: what `list(x.chunk(2, 1))` needs while tracing."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Node, Proxy

__all__ = ["CountedProxy", "stated_count"]

_ARGUMENT: dict[Any, str] = {
    torch.chunk: "chunks",
    "chunk": "chunks",
    torch.tensor_split: "indices_or_sections",
    "tensor_split": "indices_or_sections",
    torch.split: "split_size_or_sections",
    "split": "split_size",
    torch.split_with_sizes: "split_sizes",
    "split_with_sizes": "split_sizes",
}
"""Function or method -> the name of its second argument, which counts the parts or lists them."""

_COUNTED = ("chunks", "indices_or_sections")
"""Of these a number is the number of parts; of the others it is their size."""


def stated_count(node: Node) -> int | None:
    """Return the number of tensors that a call gives, None where it depends on the shape of its input.

    `chunk` gives fewer parts where the axis is shorter than their number; the graph then fails on the missing one.
    """
    name = _ARGUMENT.get(node.target)
    if name is None:
        return None
    given = node.args[1] if len(node.args) > 1 else node.kwargs.get(name)
    if isinstance(given, int):
        return given if name in _COUNTED else None
    if isinstance(given, (list, tuple)):
        return len(given) + 1 if name == "indices_or_sections" else len(given)
    return None


class CountedProxy(Proxy):
    """The symbolic result of a call that says how many tensors it gives."""

    def __len__(self) -> int:
        count = stated_count(self.node)
        return super().__len__() if count is None else count

    def __getitem__(self, index: Any) -> Any:
        """Return one of the tensors, or a tuple of those in a slice: old torch.cat takes no other symbolic value."""
        if isinstance(index, slice):
            return tuple(self)[index]
        return self.tracer.create_proxy("call_function", operator.getitem, (self, index), {})

    def __iter__(self) -> Iterator[Proxy]:
        items: Any = self
        return iter([items[index] for index in range(len(self))])

"""Unchanged: whether modules are as they were: what they consist of, how they are set, and what their tensors hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import is_
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from bpu_kernels.torch_ops import Contents

from ..derived import is_dense

__all__ = ["Unchanged", "any_global_hook"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_GLOBAL_HOOKS = [
    getattr(torch_module, f"_global_{name}_hooks") for name in ("forward", "forward_pre", "backward", "backward_pre")
]
"""torch's own dictionaries of them, which it fills in place."""


class Unchanged:
    """Modules, with those inside, as they are when this is made.

    Attributes count as unchanged while they are the same objects, lists and dicts of them too, and tensors while their
    bytes are the same: an edit through ``tensor.data`` is seen.

    Args:
        modules: what is looked at.
        parents: modules of which only the children are.
    """

    def __init__(self, modules: Iterable[nn.Module], parents: Iterable[nn.Module]) -> None:
        every = list(dict.fromkeys(inner for module in modules for inner in module.modules()))
        tensors = list(dict.fromkeys(leaf for module in every for leaf in _tensors(vars(module))))
        hooked = any(getattr(module, name) for module in every for name in _HOOKS) or any_global_hook()
        self.is_sure = not hooked and all(map(is_dense, tensors))
        """Whether that is all there is: no hook runs beside, and the memory of every tensor can be compared."""
        watched = [each for module in every for each in _containers(vars(module))]
        above = list(parents)
        watched += [parent._modules for parent in above]
        self._children = [(each._modules, list(each._modules)) for each in (*every, *above) if each._modules]
        self._every, self._types = every, list(map(type, every))
        self._filled = [(each, list(_entries(each))) for each in watched if each]
        self._empty = [each for each in watched if not each]  # most of a module's are
        self._contents = Contents(tensors if self.is_sure else ())

    def holds(self) -> bool:
        """Whether they still are, and no hook has come."""
        return (
            not (any_global_hook() or any(self._empty))
            and list(map(type, self._every)) == self._types
            and all(list(children) == names for children, names in self._children)
            and all(len(each) == len(then) and all(map(is_, _entries(each), then)) for each, then in self._filled)
            and self._contents.unchanged()
        )


def any_global_hook() -> bool:
    """Whether a hook is registered that runs at calls of every module."""
    return any(_GLOBAL_HOOKS)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for each in _entries(value):
            yield from _tensors(each)


def _containers(value: Any) -> Iterator[Any]:
    """Yield a container, and those inside: they could be changed without a change of the attribute."""
    yield value
    for each in _entries(value):
        if isinstance(each, (dict, list, set)):
            yield from _containers(each)


def _entries(container: Any) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container

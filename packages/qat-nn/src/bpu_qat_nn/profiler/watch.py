"""Hear of every call of a model's modules while a block runs, also of the methods of FloatFunctional."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..ops.functional import METHODS, QFunctional
from .places import is_functional

__all__ = ["Heard", "watched"]

_FUNCTIONAL_METHODS = sorted(
    {*METHODS, *(name for name in vars(QFunctional) if not name.startswith("_"))} - {"forward"}
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Heard:
    """What was called."""

    path: str
    module: nn.Module
    method: str | None
    """Of a FloatFunctional: which method; otherwise None."""
    function: Callable[..., Any]
    """Computes the same again, unheard."""


@contextmanager
def watched(
    modules: Iterable[tuple[str, nn.Module]],
    before: Callable[[tuple[Any, ...], dict[str, Any]], Any],
    after: Callable[[Heard, Any], Any],
) -> Iterator[None]:
    """Watch modules.

    Args:
        modules: by path.
        before: takes positional and named arguments, before the call computes.
        after: takes what was called, and the result.
    """
    undo: list[Callable[[], Any]] = []
    try:
        for path, module in modules:
            watch = _watch_methods if is_functional(module) else _watch
            undo += watch(path, module, before, after)
        yield
    finally:
        for each in undo:
            each()


def _watch(path: str, module: nn.Module, before: Any, after: Any) -> list[Callable[[], Any]]:
    heard = Heard(path=path, module=module, method=None, function=module)
    hooks = (
        module.register_forward_pre_hook(lambda module, args, kwargs: before(args, kwargs), with_kwargs=True),
        module.register_forward_hook(lambda module, args, kwargs, result: after(heard, result), with_kwargs=True),
    )
    return [hook.remove for hook in hooks]


def _watch_methods(path: str, module: nn.Module, before: Any, after: Any) -> list[Callable[[], Any]]:
    """Hooks hear of no methods, so each that the class has is replaced in the instance by one that tells."""
    names = [name for name in _FUNCTIONAL_METHODS if hasattr(module, name)]
    for name in names:
        heard = Heard(path=path, module=module, method=name, function=getattr(module, name))
        vars(module)[name] = _telling(heard, before, after)
    return [lambda: [vars(module).pop(name) for name in names]]


def _telling(heard: Heard, before: Any, after: Any) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        before(args, kwargs)
        result = heard.function(*args, **kwargs)
        after(heard, result)
        return result

    return call

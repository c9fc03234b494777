"""`wrap`: keep a function, a method, a module class or a named global as one node of the traced graph."""

from __future__ import annotations

import builtins
import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, TypeVar, overload

from torch import nn

from ..errors import WrapError
from .leaf import is_leaf_callable, leaf_callable, register_leaf_module

_T = TypeVar("_T")

_WRAPPED_NAMES: list[tuple[dict[str, Any], str, object]] = []
"""Namespace, name in it, and the function it must hold (None where `wrap` was given only the name)."""

_MISSING = object()


@overload
def wrap(obj: bool = False, *, skip_compile: bool = False) -> Callable[[_T], _T]: ...
@overload
def wrap(obj: _T, *, skip_compile: bool = False) -> _T: ...
def wrap(obj: Any = False, *, skip_compile: bool = False) -> Any:
    """Keep the wrapped code as it is when a model is traced: one node, nothing inside is looked at.

    Use it as `@wrap()`, as `@wrap`, or as a statement `wrap(obj)`, on

    - a **method** in a class body: the call becomes `call_method` on the module that owns it. At run time `self` is
      the traced model (or its submodule), so the method sees modules that were fused or swapped, and `self.training`;
    - a **function**: recorded when an argument is symbolic, otherwise just called;
    - a **Module subclass**: it becomes a leaf module, and so does each of its own methods;
    - a **string**, the name of a builtin or of a global of the calling module: `wrap("len")`.

    Data-dependent control flow, `len()` of a tensor, `if self.training` and code outside torch need it.

    Args:
        obj: What to wrap; left out when used as `@wrap()`.
        skip_compile: Accepted for compatibility with the vendor's signature; nothing here is compiled.

    Raises:
        WrapError: The object is none of the above.
    """
    caller = sys._getframe(1).f_globals
    if isinstance(obj, bool):  # `wrap()` and `wrap(skip_compile)`
        return lambda target: _wrap(target, caller)
    return _wrap(obj, caller)


def _wrap(obj: Any, caller: dict[str, Any]) -> Any:
    if isinstance(obj, str):
        _WRAPPED_NAMES.append((caller, obj, None))
        return obj
    if isinstance(obj, staticmethod):
        return staticmethod(leaf_callable(obj.__func__))
    if isinstance(obj, type) and issubclass(obj, nn.Module):
        return _wrap_module_class(obj)
    if isinstance(obj, FunctionType):
        return _wrap_function(obj, caller)
    if inspect.isbuiltin(obj):
        home = sys.modules.get(obj.__module__ or "", builtins)
        # Patching builtins itself would reach all code; there the name in the caller's module is enough.
        _patch_later(obj, caller if home is builtins else vars(home), caller)
        return leaf_callable(obj, target=obj)
    raise WrapError(
        f"wrap expects a function, a method, a subclass of torch.nn.Module or the name of a global, got {obj!r}. "
        "Put the code into a function or a method and wrap that."
    )


def _wrap_module_class(module_type: type[nn.Module]) -> type[nn.Module]:
    for name, method in inspect.getmembers(module_type, inspect.isfunction):
        is_own = not name.startswith("__") and not hasattr(nn.Module, name)
        if is_own and not isinstance(inspect.getattr_static(module_type, name), staticmethod):
            setattr(module_type, name, leaf_callable(method))
    return register_leaf_module(module_type)


def _wrap_function(function: FunctionType, caller: dict[str, Any]) -> Any:
    recorded = leaf_callable(function)
    owner_name, _, method_name = function.__qualname__.rpartition(".")
    owner = function.__globals__.get(owner_name)
    if isinstance(owner, type) and vars(owner).get(method_name) is function:
        # The statement `wrap(SomeClass.method)`, after the class exists: the class has to learn of it.
        setattr(owner, method_name, recorded)
    elif not owner_name:
        # As a statement, `wrap(function)` drops what is returned; then the names that hold the function are patched.
        _patch_later(function, function.__globals__, caller)
    return recorded


def _patch_later(function: Any, *namespaces: dict[str, Any]) -> None:
    _WRAPPED_NAMES.extend((namespace, function.__name__, function) for namespace in namespaces)


@contextlib.contextmanager
def wrapped_names_patched() -> Iterator[None]:
    """Let the globals wrapped by name record themselves while a model is traced, and restore them afterwards."""
    restore: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for namespace, name, expected in _WRAPPED_NAMES:
            previous = namespace.get(name, _MISSING)
            original: Any = getattr(builtins, name, None) if previous is _MISSING else previous
            if expected is None and not callable(original):
                raise WrapError(f"wrap({name!r}): there is no such function in {namespace.get('__name__')}.")
            if (expected is None or original is expected) and not is_leaf_callable(original):
                restore.append((namespace, name, previous))
                namespace[name] = leaf_callable(original, target=original)
        yield
    finally:
        for namespace, name, previous in reversed(restore):
            if previous is _MISSING:
                del namespace[name]
            else:
                namespace[name] = previous

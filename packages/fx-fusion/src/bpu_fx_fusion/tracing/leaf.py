"""What tracing keeps as one node: the leaf module types, and callables that record themselves.

`wrap` is the public way in; `register_leaf_module` is for module types of other packages.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar, cast

from torch import nn
from torch.fx import Proxy
from torch.fx.node import map_aggregate

_F = TypeVar("_F", bound=Callable[..., Any])
_M = TypeVar("_M", bound=type[nn.Module])

_LEAF_TYPES: set[type[nn.Module]] = set()
_MARK = "_bpu_fx_fusion_leaf"


class MethodRecorder(Protocol):
    """A tracer that can record the call of a wrapped method."""

    def record_method(self, owner: nn.Module, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Proxy:
        """Record `owner.name(*args, **kwargs)` as one node."""
        ...


ACTIVE_RECORDER: ContextVar[MethodRecorder | None] = ContextVar("ACTIVE_RECORDER", default=None)
"""The tracer at work, if any. A method without tensor arguments can only find its tracer here."""


def register_leaf_module(module_type: _M) -> _M:
    """Declare a module type a leaf: tracing keeps its call as one `call_module` node.

    The type is matched exactly, subclasses are not leaves by inheritance. Registering twice is harmless. Returns the
    type, so it can be used as a class decorator.
    """
    _LEAF_TYPES.add(module_type)
    return module_type


def is_registered_leaf(module: nn.Module) -> bool:
    """Tell whether exactly this module's type was registered as a leaf."""
    return type(module) in _LEAF_TYPES


def leaf_callable(function: _F, target: Callable[..., Any] | None = None) -> _F:
    """Return a callable that records itself as one node while a model is traced, and otherwise is the function.

    A method of a module is recorded whenever a tracer is at work. A plain function is recorded when one of its
    arguments is symbolic; without one there is nothing to record and it is simply called.

    Args:
        function: A function, or a method as found in a class body.
        target: What the node of a plain function refers to; the returned callable itself if not given.
    """

    @functools.wraps(function)
    def recorded(*args: Any, **kwargs: Any) -> Any:
        if _is_method_call(recorded, args):
            recorder = ACTIVE_RECORDER.get()
            if recorder is not None:
                return recorder.record_method(args[0], function.__name__, args[1:], kwargs)
        else:
            proxy = _first_proxy((args, kwargs))
            if proxy is not None:
                return proxy.tracer.create_proxy("call_function", target or recorded, args, kwargs)
        return function(*args, **kwargs)

    vars(recorded)[_MARK] = True
    return cast(_F, recorded)


def is_leaf_callable(function: object) -> bool:
    """Tell whether a callable came out of `leaf_callable`."""
    return hasattr(function, _MARK)


def _is_method_call(recorded: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    # Asking the instance rather than its class also finds the methods that a graph module offers for its source class.
    if not args or not isinstance(args[0], nn.Module):
        return False
    bound = getattr(args[0], recorded.__name__, None)
    function = getattr(bound, "__func__", None)
    while function is not None and function is not recorded:
        # Another decorator, such as torch.no_grad(), may stand outside.
        function = getattr(function, "__wrapped__", None)
    return function is recorded


def _first_proxy(arguments: Any) -> Proxy | None:
    found: list[Proxy] = []

    def visit(value: Any) -> Any:
        if isinstance(value, Proxy):
            found.append(value)
        return value

    map_aggregate(arguments, visit)
    return found[0] if found else None

"""The march that models are prepared for: set once for the process, or for the length of a ``with`` block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from bpu_kernels.march import March

from .errors import MarchNotSetError

__all__ = ["March", "get_march", "march_scope", "set_march"]

_process_march: March | None = None
_scope_march: ContextVar[March | None] = ContextVar("bpu_qconfig.march", default=None)


def set_march(march: March | str) -> None:
    """Set the march for all threads of the process.

    Inside ``march_scope`` it changes the march of that scope instead, and the end of the scope takes it back.

    Args:
        march: a member of ``March`` or its lower-case name.

    Raises:
        bpu_kernels.errors.UnsupportedError: an unknown name; the message lists those that exist.
    """
    global _process_march
    chosen = March(march)
    if _scope_march.get() is None:
        _process_march = chosen
    else:
        _scope_march.set(chosen)


def get_march() -> March:
    """Return the march of the innermost ``march_scope``, or else the one of the process.

    Raises:
        MarchNotSetError: neither was set.
    """
    march = _scope_march.get() or _process_march
    if march is None:
        names = ", ".join(repr(known.value) for known in March)
        raise MarchNotSetError(
            f"the march is not set; call set_march(...) with one of {names} before preparing a model"
        )
    return march


@contextmanager
def march_scope(march: March | str) -> Iterator[March]:
    """Use another march inside a ``with`` block; what was set before returns at its end, also after an exception.

    The scope belongs to the current thread or asyncio task. Threads that are started inside it see the march of the
    process.
    """
    token = _scope_march.set(March(march))
    try:
        yield get_march()
    finally:
        _scope_march.reset(token)

"""Classes with some of their arguments: what ``with_args`` returns and a QConfig holds."""

from __future__ import annotations

import functools
from typing import Any

import torch

__all__ = ["Partial", "WithArgs"]


class Partial(functools.partial[Any]):
    """A class together with keyword arguments; calling it makes a module, with further arguments if given.

    Two are equal if they make the same thing. As with ``functools.partial``, ``func`` is the class and ``keywords`` the
    arguments.
    """

    def with_args(self, **keywords: Any) -> Partial:
        """Return a copy with further arguments; the later value of a name wins."""
        return Partial(self.func, **{**self.keywords, **keywords})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Partial):
            return NotImplemented
        return (
            self.func is other.func
            and self.keywords.keys() == other.keywords.keys()
            and all(_equal(value, other.keywords[name]) for name, value in self.keywords.items())
        )

    def __hash__(self) -> int:
        return hash((self.func, frozenset(self.keywords)))

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={_show(value)}" for name, value in self.keywords.items())
        return f"{_show(self.func)}.with_args({arguments})"


class WithArgs:
    """Mixin that gives a class ``with_args``."""

    @classmethod
    def with_args(cls, **keywords: Any) -> Partial:
        """Return a factory of this class with some of its arguments set.

        One factory makes any number of independent modules: ``make = FakeQuantize.with_args(dtype="qint8")``, then
        ``make()`` or ``make(channel_len=16)``.
        """
        return Partial(cls, **keywords)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    return bool(a == b)


def _show(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else repr(value)

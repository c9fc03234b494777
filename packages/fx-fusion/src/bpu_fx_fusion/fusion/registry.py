"""The table of registered fusion patterns, and the decorator by which users add their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..errors import PatternError
from .handlers import FusionHandler
from .pattern import Pattern, canonical_pattern, describe_pattern

_H = TypeVar("_H", bound=type[FusionHandler])

FUSION_PATTERNS: dict[Pattern, type[FusionHandler]] = {}
"""The registered patterns in canonical form, and the handler of each."""


def register_fusion_pattern(pattern: Pattern) -> Callable[[_H], _H]:
    """Return a decorator that registers a FusionHandler for a pattern.

    Forms that tracing turns into the same module are the same pattern: `torch.add`, `operator.add` and
    `FloatFunctional.add`, or `F.relu` and `nn.ReLU`. Registering a pattern again with the same handler is harmless.

    Raises:
        PatternError: The pattern is malformed, or has another handler already.
    """
    canonical = canonical_pattern(pattern)

    def register(handler: _H) -> _H:
        registered = FUSION_PATTERNS.setdefault(canonical, handler)
        if registered is not handler:
            raise PatternError(
                f"The pattern {describe_pattern(canonical)} is registered already with {registered.__name__}; "
                f"{handler.__name__} would never be used. Subclass or change that handler, or use another pattern."
            )
        return handler

    return register

"""Layers that are called several times: they are fused once, and only if every call fuses alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..modules.float_functional import FloatFunctional
from ..report import NotFused
from .handlers import FusionContext, FusionHandler
from .match import operation_of


def settle_shared(
    handlers: Sequence[FusionHandler], context: FusionContext
) -> tuple[list[list[FusionHandler]], list[NotFused]]:
    """Group matches by the layer they start with.

    Returns:
        The groups to fuse, one module each, and the groups that stay separate because their calls differ.
    """
    groups: dict[str, list[FusionHandler]] = {}
    for handler in handlers:
        layer = handler.match.nodes[-1]
        groups.setdefault(context.label(layer), []).append(handler)
    accepted: list[list[FusionHandler]] = []
    refused: list[NotFused] = []
    for group in groups.values():
        reason = _objection(group, context)
        if reason is None:
            accepted.append(group)
        else:
            refused.append(NotFused(members=members_of(group), reason=reason))
    return accepted, refused


def members_of(group: Sequence[FusionHandler]) -> tuple[str, ...]:
    """Return the paths of all modules of a group, in order of execution, each once."""
    return tuple(dict.fromkeys(member for handler in group for member in handler.members))


def _objection(group: Sequence[FusionHandler], context: FusionContext) -> str | None:
    layer = group[0].match.nodes[-1]
    calls = len(context.calls_of(layer))
    if calls == 1:
        return None
    shared = f"{context.label(layer)} is called {calls} times"
    kinds = dict.fromkeys(" + ".join(handler.operations) for handler in group)
    if any(FloatFunctional.add in _operations(handler, context) for handler in group):
        return f"{shared} and its output is added to another tensor"
    if len(group) < calls:
        return f"{shared}, only {len(group)} of them as {' or '.join(kinds)}"
    if len(kinds) > 1:
        return f"{shared}, in different ways: {'; '.join(kinds)}"
    if len({_identity(handler, context) for handler in group}) > 1:
        return f"{shared}, followed by different modules: {'; '.join(' + '.join(h.members) for h in group)}"
    return None


def _operations(handler: FusionHandler, context: FusionContext) -> list[Any]:
    return [operation_of(node, context.modules) for node in handler.match.nodes]


def _identity(handler: FusionHandler, context: FusionContext) -> tuple[Any, ...]:
    """Return what must be equal for two calls to fuse alike: the modules, or their types where there is no state."""
    modules = [context.modules.get(context.label(node)) for node in handler.match.nodes]
    return (
        type(handler),
        handler.match.pattern,
        *(id(module) if module is not None and module.state_dict() else type(module) for module in modules),
    )

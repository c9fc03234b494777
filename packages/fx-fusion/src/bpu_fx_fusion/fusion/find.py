"""Find what to fuse in a graph: the longest match at every node, and what nearly matched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.fx import Graph, Node

from ..report import NotFused
from .handlers import FusionContext, FusionHandler
from .match import match_pattern, resembled_operation
from .pattern import Pattern, pattern_length
from .registry import FUSION_PATTERNS


def find_matches(graph: Graph, context: FusionContext) -> tuple[list[FusionHandler], list[NotFused]]:
    """Return the matches to fuse, which share no node, and what nearly matched but stays separate.

    Both are in order of execution.
    """
    by_operation: dict[Any, list[Pattern]] = {}
    # Longest first, so that conv + bn + relu is not taken apart into conv + bn and relu.
    for pattern in sorted(FUSION_PATTERNS, key=pattern_length, reverse=True):
        by_operation.setdefault(pattern[0] if isinstance(pattern, tuple) else pattern, []).append(pattern)
    found: list[FusionHandler] = []
    taken: set[Node] = set()
    refusals: dict[Node, NotFused] = {}
    for node in reversed(graph.nodes):  # from the last operation backwards, as patterns are written
        for pattern in by_operation.get(resembled_operation(node, context.modules), ()):
            match = match_pattern(pattern, node, context.modules)
            if match is None or not taken.isdisjoint(match.nodes):
                continue
            handler = FUSION_PATTERNS[pattern](match, context)
            reason = _objection(handler)
            if reason is None:
                found.append(handler)
                taken.update(match.nodes)
                break
            refusals.setdefault(node, NotFused(members=handler.members, reason=reason))
    near_misses = _most_complete([refusal for node, refusal in refusals.items() if node not in taken])
    return found[::-1], near_misses[::-1]


def _objection(handler: FusionHandler) -> str | None:
    read = [member for member in handler.members if member in handler.context.read]
    if read:
        return f"the forward itself uses the parameters of {', '.join(read)}"
    return next(iter(handler.match.objections), None) or handler.refusal()


def _most_complete(refusals: Sequence[NotFused]) -> list[NotFused]:
    """Drop a refusal that is part of another one with the same reason, such as conv + bn of conv + bn + relu."""
    return [
        r
        for r in refusals
        if not any(r is not o and r.reason == o.reason and set(r.members) < set(o.members) for o in refusals)
    ]

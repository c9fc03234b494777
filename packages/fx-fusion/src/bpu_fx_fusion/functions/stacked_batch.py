"""Stacks that are only made to be reduced again: along an axis behind the batch they mean the same."""

from __future__ import annotations

from typing import Any, Final

from torch.fx import Node

__all__ = ["reduced_along_batch"]

_REDUCTIONS: Final = frozenset({"sum", "mean", "amax", "amin", "max", "min"})


def reduced_along_batch(stack: Node) -> bool:
    """Let the reductions of a stack along its first axis go along the second instead; edits the graph.

    Hardware reduces along every axis but the batch, which is the first.

    Given:  `stack = torch.stack([x, y], 0);  mean = stack.mean(0)`
    Result: `mean = stack.mean(1)`, to be taken of `torch.stack([x, y], 1)`

    Returns:
        Whether all users are such reductions; otherwise nothing is edited.
    """
    users = list(stack.users)
    if not users or not all(_reduces_first_axis(user) for user in users):
        return False
    for user in users:
        if "dim" in user.kwargs:
            user.update_kwarg("dim", 1)
        else:
            user.update_arg(1, 1)
    return True


def _reduces_first_axis(user: Node) -> bool:
    name = user.target if user.op == "call_method" else getattr(user.target, "__name__", "")
    if user.op not in ("call_method", "call_function") or name not in _REDUCTIONS:
        return False
    dim: Any = user.kwargs.get("dim", user.args[1] if len(user.args) > 1 else None)
    return dim in (0, (0,), [0]) and dim is not False and len(user.args) <= 2 and not user.kwargs.get("keepdim")

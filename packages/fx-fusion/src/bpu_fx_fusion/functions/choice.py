"""Replace what compares and chooses by modules: comparisons, torch.where, and functions that find the largest."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from torch.fx import Node

from ..graph.nodes import contains_node
from ..modules.reduction import Amax, Amin
from ..modules.selection import MIRRORED, Gather, MaskedFill, TopIndices, Where
from .arithmetic import binary
from .recipe import CompareForm, RankedForm
from .replacement import Call

__all__ = ["compared", "ranked", "where"]


def compared(call: Call, recipe: CompareForm) -> Node:
    """Compare two tensors, or a tensor with a number on either side."""
    bound = call.bind(("input", "other"), {"out": None})
    left, right = bound["input"], bound["other"]
    if call.is_tensor(left) and call.is_tensor(right):
        return call.call_module(recipe.op, recipe.module(), left, right)
    module, tensor, number = recipe.module, left, right
    if call.is_tensor(right):
        module, tensor, number = MIRRORED[recipe.module], right, left
    if not call.is_tensor(tensor) or not isinstance(number, int | float):
        call.keep("its operands are neither two tensors nor a tensor and a known number")
    return call.call_module(recipe.op, module(float(number)), tensor)


def where(call: Call) -> Node:
    """Choose between two tensors, or fill with a number."""
    names = ("input", "condition", "other") if call.node.op == "call_method" else ("condition", "input", "other")
    bound = call.bind(names, {"out": None})
    if set(names) - bound.keys():
        call.keep("it asks for indices")
    condition, x, y = (bound[name] for name in ("condition", "input", "other"))
    if call.is_tensor(x) and call.is_tensor(y):
        return call.call_module("where", Where(), condition, x, y)
    tensor, number = (x, y) if call.is_tensor(x) else (y, x)
    if not call.is_tensor(tensor) or not isinstance(number, int | float):
        call.keep("its operands are neither two tensors nor a tensor and a known number")
    return call.call_module("where", MaskedFill(float(number), inverted=tensor is x), tensor, condition)


def ranked(call: Call, recipe: RankedForm) -> Node | None:
    """Find the largest, or smallest, along an axis: a module for the values, one for the indices, as they are used.

    Given:  `topk = x.topk(3, 1);  values = topk[0];  indices = topk[1]`
    Result: `indices = self._generated_topk_0(x);  values = self._generated_gather_0(x, index=indices)`

    Returns:
        The result that takes the place of the call; None where its users have been given theirs.
    """
    if recipe.pairwise is not None and len(call.node.args) == 2 and call.is_tensor(call.node.args[1]):
        return binary(call, recipe.pairwise)
    bound = call.bind(recipe.parameters, recipe.fixed)
    if contains_node([value for name, value in bound.items() if name != "input"]):
        call.keep("its axis or its count is computed at run time")
    if recipe.required and bound.get(recipe.required) is None:
        call.keep(f"no {recipe.required} is given")
    x, dim = bound["input"], bound.get("dim", -1)
    largest = bound.get("largest", bound.get("descending", recipe.largest and recipe.op != "sort"))
    keepdim, count = bound.get("keepdim", False), bound.get("k")
    if recipe.op == "sort":
        count = call.length(x, dim)
    one = count is None

    def indices() -> Node:
        return call.call_module(recipe.op, TopIndices(count, dim, largest, keepdim), x)

    def values() -> Node:
        if one:
            return call.call_module(recipe.op, (Amax if largest else Amin)(dim, keepdim), x)
        return call.call_module("gather", Gather(dim), x, index=made("indices"))

    makers: Mapping[str, Callable[[], Node]] = {"values": values, "indices": indices}
    results: dict[str, Node] = {}

    def made(name: str) -> Node:
        if name not in results:
            results[name] = makers[name]()
        return results[name]

    if recipe.gives == ("indices",):
        return made("indices")
    parts = {user: _part(user, recipe) for user in call.node.users}
    if any(part is None for part in parts.values()):
        call.keep("its result is used as a whole; take its values or its indices")
    for user, part in parts.items():
        user.replace_all_uses_with(made(str(part)))
        call.gm.graph.erase_node(user)
    return None


def _part(user: Node, recipe: RankedForm) -> Any:
    """Return which of the results a user takes, None if it takes them as they are."""
    if user.op != "call_function" or len(user.args) != 2:
        return None
    taken = user.args[1]
    if user.target is getattr:
        return taken if taken in recipe.gives else None
    return recipe.gives[taken] if user.target is operator.getitem and isinstance(taken, int) else None

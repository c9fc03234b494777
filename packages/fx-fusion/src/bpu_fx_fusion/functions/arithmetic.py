"""Replace arithmetic by methods of FloatFunctional, and by modules where it has none."""

from __future__ import annotations

from typing import Any, cast

from torch.fx import Node

from ..graph.nodes import contains_node
from ..modules.elementwise import Clamp
from .recipe import Binary, ClampForm, Method, Step
from .replacement import Call
from .stacked_batch import reduced_along_batch

__all__ = ["addcmul", "binary", "clamp", "method", "stack"]


def binary(call: Call, recipe: Binary) -> Node:
    """Combine two tensors, or a tensor with a number on either side."""
    bound = call.bind(("input", "other"), recipe.fixed)
    left, right = bound["input"], bound["other"]
    if call.is_tensor(left) and call.is_tensor(right):
        if isinstance(recipe.tensors, str):
            return call.call_functional(recipe.tensors, left, right)
        return call.call_module(recipe.op, recipe.tensors(), left, right)
    if call.is_tensor(left):
        tensor, number, steps = left, right, recipe.number_right
    else:
        tensor, number, steps = right, left, recipe.number_left
    if not steps or not call.is_tensor(tensor) or not call.is_number(number):
        call.keep("its operands are not two tensors")
    if recipe.op == "div" and tensor is left and number == 0:
        call.keep("it divides by zero")
    for step in steps:
        tensor = _step(call, step, tensor, number)
    return cast(Node, tensor)


def _step(call: Call, step: Step, tensor: Node, number: Any) -> Node:
    if not isinstance(step.to, str):
        module = step.to() if step.keyword is None else step.to(**{step.keyword: number})
        return call.call_module(step.to.__name__.lower(), module, tensor)
    if callable(step.number):
        is_node = isinstance(number, Node)
        number = call.create("call_function", step.number, (number,)) if is_node else step.number(number)
    elif step.number is not None:
        number = step.number
    return call.call_functional(step.to, tensor, number)


def method(call: Call, recipe: Method) -> Node:
    """Call the method of FloatFunctional that does the same."""
    bound = call.bind(recipe.parameters, recipe.fixed)
    if recipe.required and bound.get(recipe.required) is None:
        call.keep(f"no {recipe.required} is given")
    first = bound.pop(recipe.parameters[0])
    return call.call_functional(recipe.op, first, *recipe.appended, **bound)


def clamp(call: Call, recipe: ClampForm) -> Node:
    """Limit from below, then from above, which has the last word as in torch."""
    bound = call.bind(("input", *recipe.parameters), recipe.fixed)
    x, limits = bound.pop("input"), {name: value for name, value in bound.items() if value is not None}
    if not limits or not call.is_tensor(x):
        call.keep("it has no limits, or its first argument is not a tensor")
    if not any(call.is_tensor(value) for value in limits.values()):
        known = {name: value for name, value in limits.items() if not contains_node(value)}
        computed = {name: value for name, value in limits.items() if name not in known}
        return call.call_module("clamp", Clamp(**known), x, **computed)
    for name, extremum in (("min", "maximum"), ("max", "minimum")):
        if name in limits and call.is_tensor(limits[name]):
            x = call.call_functional(extremum, x, limits[name])
        elif name in limits:
            x = call.call_module("clamp", Clamp(**{name: limits[name]}), x)
    return cast(Node, x)


def stack(call: Call) -> Node:
    """Join tensors along a new axis."""
    bound = call.bind(("tensors", "dim"), {"out": None})
    dim = bound.get("dim", 0)
    if not isinstance(bound["tensors"], list | tuple) or not isinstance(dim, int):
        call.keep("its tensors or its dim are computed at run time")
    if dim == 0 and reduced_along_batch(call.node):
        dim = 1
    parts = [call.create("call_method", "unsqueeze", (each, dim)) for each in bound["tensors"]]
    return call.call_functional("cat", parts, dim=dim)


def addcmul(call: Call) -> Node:
    """Add a product."""
    bound = call.bind(("input", "tensor1", "tensor2"), {"value": 1, "out": None})
    product = call.call_functional("mul", bound["tensor1"], bound["tensor2"])
    return call.call_functional("add", bound["input"], product)

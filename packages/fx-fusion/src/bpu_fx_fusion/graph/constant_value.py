"""The value of a node that depends on parameters and buffers alone, such as a standardized weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.fx.node import map_arg

from .nodes import attribute_of

__all__ = ["constant_value"]


def constant_value(root: nn.Module, value: Any) -> Any:
    """Return what a node always gives; None if that depends on the model's inputs.

    A parameter or buffer is returned itself. What is computed from some is a new parameter, which learns on its own
    from then on, as a weight does that a BatchNorm was folded into.

    Args:
        root: The module that the graph belongs to.
        value: A node, or an argument that is none and is returned as it is.
    """
    if not isinstance(value, Node):
        return value
    if value.op == "get_attr":
        return attribute_of(root, str(value.target))
    order = _sources(value)
    if order is None:
        return None
    with torch.no_grad():
        known: dict[Node, Any] = {}
        for node in order:
            known[node] = _evaluate(root, node, known)
    found = known[value]
    if not isinstance(found, Tensor):
        return found
    learns = any(isinstance(known[node], nn.Parameter) and known[node].requires_grad for node in order)
    return nn.Parameter(found.detach().clone(), requires_grad=learns and found.is_floating_point())


def _sources(node: Node) -> list[Node] | None:
    """Return the nodes that a node is computed from, itself last; None if an input or a module is among them."""
    order: dict[Node, None] = {}
    waiting = [node]
    while waiting:
        last = waiting[-1]
        if last.op not in ("get_attr", "call_function", "call_method"):
            return None
        missing = [source for source in last.all_input_nodes if source not in order]
        waiting.extend(missing)
        if not missing:
            order[waiting.pop()] = None
    return list(order)


def _evaluate(root: nn.Module, node: Node, known: dict[Node, Any]) -> Any:
    if node.op == "get_attr":
        return attribute_of(root, str(node.target))
    args = map_arg(node.args, known.__getitem__)
    kwargs = map_arg(node.kwargs, known.__getitem__)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert callable(node.target)
    return node.target(*args, **kwargs)

"""Operations that overwrite their input: find them, and let their result be used where the overwritten tensor was."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Final

import torch
from torch import nn
from torch.fx import Graph, Node

_RESHAPES: Final = ("view", "reshape", "flatten", "permute", "transpose", "t", "squeeze", "unsqueeze")
_PARTS: Final = ("chunk", "split", "narrow", "select", "expand", "contiguous")
_VIEW_METHODS: Final = frozenset(_RESHAPES + _PARTS)
_VIEW_FUNCTIONS: Final = frozenset(
    (operator.getitem, *(getattr(torch, name) for name in _VIEW_METHODS if hasattr(torch, name)))
)


def overwritten_input(node: Node, modules: Mapping[str, nn.Module]) -> Node | None:
    """Return the node whose value an operation overwrites, as `x.add_(y)` and a ReLU with inplace=True do, or None."""
    if node.op == "call_module":
        overwrites = getattr(modules.get(str(node.target)), "inplace", False) is True
    elif node.op == "call_method":
        overwrites = _is_inplace_name(str(node.target))
    else:
        name = getattr(node.target, "__name__", "")
        overwrites = node.op == "call_function" and (node.kwargs.get("inplace") is True or _is_inplace_name(name))
    first = next(iter(node.args or node.kwargs.values()), None)
    return first if overwrites and isinstance(first, Node) else None


def forward_overwritten(graph: Graph, modules: Mapping[str, nn.Module]) -> None:
    """Let every later user of an overwritten tensor use the result instead; edits the graph in place.

    The two are the same tensor, so nothing changes, but then the operation may be replaced by one that returns a new
    tensor.

    Given:  `relu_ = x.relu_();  add = x + y`
    Result: `relu_ = x.relu_();  add = relu_ + y`
    """
    position = {node: index for index, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        overwritten = overwritten_input(node, modules)
        if overwritten is not None:
            for user in list(overwritten.users):
                if position[user] > position[node]:
                    user.replace_input_with(overwritten, node)


def is_view(node: Node) -> bool:
    """Tell whether a node's value may share its memory with another tensor of the graph."""
    return node.target in (_VIEW_METHODS if node.op == "call_method" else _VIEW_FUNCTIONS)


def _is_inplace_name(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__")

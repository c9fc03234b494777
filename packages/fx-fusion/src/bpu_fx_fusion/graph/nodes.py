"""Small questions about the nodes of a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.fx import Node
from torch.fx.node import map_arg


def owner_of(node: Node) -> str:
    """Return the path of the module whose forward issued a node, "" for the root."""
    owner: str = node.meta.get("owner", "")
    return owner


def method_module(node: Node, modules: Mapping[str, nn.Module]) -> str | None:
    """Return the path of the module of which a node calls a method ("itself" for the root), or None."""
    first = node.args[0] if node.op == "call_method" and node.args else None
    if not isinstance(first, Node) or first.op != "get_attr":
        return None
    path = str(first.target)
    return path if path == "itself" or path in modules else None


def called_function(node: Node, modules: Mapping[str, nn.Module]) -> Callable[..., Any] | None:
    """Return the function that a node calls; for a method of a tensor, the function of torch.Tensor."""
    if node.op == "call_method" and method_module(node, modules) is None:
        return getattr(Tensor, str(node.target), None)
    return node.target if node.op == "call_function" and callable(node.target) else None


def called_module(node: Node, modules: Mapping[str, nn.Module]) -> str | None:
    """Return the path of the module that a node calls, itself or by a method, or None."""
    return str(node.target) if node.op == "call_module" else method_module(node, modules)


def label(node: Node, modules: Mapping[str, nn.Module]) -> str:
    """Return the path of the module that a node calls, or else the node's name."""
    return called_module(node, modules) or node.name


def contains_node(value: Any) -> bool:
    """Tell whether an argument is a node or holds one, however deep in lists, tuples, dicts and slices."""
    found: list[Node] = []

    def visit(node: Node) -> Node:
        found.append(node)
        return node

    map_arg(value, visit)
    return bool(found)


def attribute_of(root: nn.Module, path: str) -> Any:
    """Return what a `get_attr` node reads: a parameter, buffer or module; None if there is no such thing."""
    found: Any = root
    for name in path.split("."):
        found = getattr(found, name, None)
    return found

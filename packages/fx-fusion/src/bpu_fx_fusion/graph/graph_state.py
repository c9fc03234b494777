"""A graph as plain picklable data and back, which keeps node names and owners; torch.fx itself would trace again."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.fx import Graph, Node
from torch.fx.node import map_aggregate, map_arg

from .nodes import owner_of


@dataclass(frozen=True, kw_only=True)
class NodeRef:
    """Stands for a node of the same graph within arguments."""

    name: str


@dataclass(frozen=True, kw_only=True)
class FunctionRef:
    """Stands for a function that pickle cannot find by its qualified name, such as F.adaptive_max_pool2d."""

    module: str
    name: str


@dataclass(frozen=True, kw_only=True)
class NodeState:
    """One node: the fields of torch.fx.Node, with nodes and functions replaced by references."""

    name: str
    op: str
    target: Any
    args: Any
    kwargs: Any
    type: Any
    owner: str
    """Path of the module whose forward issued the node, "" for the root."""


def describe_graph(graph: Graph) -> tuple[NodeState, ...]:
    """Return the graph's nodes as picklable data; of a node's `meta` only the owner is kept."""
    return tuple(
        NodeState(
            name=node.name,
            op=node.op,
            target=_reference(node.target) if callable(node.target) else node.target,
            args=_with_references(node.args),
            kwargs=_with_references(node.kwargs),
            type=node.type,
            owner=owner_of(node),
        )
        for node in graph.nodes
    )


def rebuild_graph(states: tuple[NodeState, ...]) -> Graph:
    """Return the graph that `describe_graph` described."""
    graph = Graph()
    nodes: dict[str, Node] = {}

    def resolve(value: Any) -> Any:
        return nodes[value.name] if isinstance(value, NodeRef) else value

    for state in states:
        target = _function(state.target) if isinstance(state.target, FunctionRef) else state.target
        node = graph.create_node(
            state.op,
            target,
            map_aggregate(state.args, resolve),
            map_aggregate(state.kwargs, resolve),
            name=state.name,
            type_expr=state.type,
        )
        node.meta["owner"] = state.owner
        nodes[state.name] = node
    return graph


def _with_references(arguments: Any) -> Any:
    return map_arg(arguments, lambda node: NodeRef(name=node.name))  # type: ignore[arg-type, return-value]


def _reference(function: Callable[..., Any]) -> Any:
    module, name = getattr(function, "__module__", None), getattr(function, "__name__", "")
    if module is not None and getattr(importlib.import_module(module), name, None) is function:
        return FunctionRef(module=module, name=name)
    return function


def _function(reference: FunctionRef) -> Any:
    return getattr(importlib.import_module(reference.module), reference.name)

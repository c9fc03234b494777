"""Match patterns against a graph, and say why a near match is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from torch import nn
from torch.fx import Node

from ..graph.nodes import called_function, contains_node, label, method_module
from ..modules.float_functional import FloatFunctional
from .pattern import MatchAllNode, Pattern

_NEARLY: Final[Mapping[Any, tuple[Any, str]]] = {
    FloatFunctional.add_scalar: (FloatFunctional.add, "a number is added, not a tensor"),
}
"""Operations that resemble one of a pattern: the one they resemble, and why they do not match."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """Nodes that have the shape of a pattern."""

    pattern: Pattern

    nodes: tuple[Node, ...]
    """The matched nodes, the last operation first."""

    objections: tuple[str, ...]
    """Why they are nevertheless no match; empty if they are one."""


def match_pattern(pattern: Pattern, root: Node, modules: Mapping[str, nn.Module]) -> Match | None:
    """Match a canonical pattern against the node of its last operation and what feeds it.

    Returns:
        None if the nodes have another shape. A match has objections if a result inside the pattern is used elsewhere
        as well, or if an operation only resembles that of the pattern.
    """
    nodes: list[Node] = []
    objections: list[str] = []

    def matches(part: Pattern, value: Any) -> bool:
        if part is MatchAllNode:
            return True
        if not isinstance(value, Node):
            return False
        operation, *inputs = part if isinstance(part, tuple) else (part,)
        found = operation_of(value, modules)
        resembled, reason = _NEARLY.get(found, (None, ""))
        if operation not in (found, resembled):
            return False
        if operation is not found:
            objections.append(reason)
        if nodes and len(value.users) > 1:
            objections.append(f"the output of {label(value, modules)} has {len(value.users)} users")
        nodes.append(value)
        return not inputs or all_match(inputs, value)

    def all_match(inputs: list[Pattern], value: Node) -> bool:
        operands = operands_of(value, modules)
        matched, settings = operands[: len(inputs)], (operands[len(inputs) :], value.kwargs)
        # What a pattern does not mention may be a setting, such as a dimension, but not another tensor.
        return len(matched) == len(inputs) and not contains_node(settings) and all(map(matches, inputs, matched))

    if not matches(pattern, root):
        return None
    return Match(pattern=pattern, nodes=tuple(nodes), objections=tuple(objections))


def operation_of(node: Node, modules: Mapping[str, nn.Module]) -> Any:
    """Return what a node does, as patterns name it: a module's type, a method of FloatFunctional, or a function."""
    if node.op == "call_module":
        return type(modules[str(node.target)])
    if is_functional_call(node, modules):
        return getattr(FloatFunctional, str(node.target), None)
    return called_function(node, modules)


def resembled_operation(node: Node, modules: Mapping[str, nn.Module]) -> Any:
    """Return the operation whose patterns are worth trying: the node's own, or the one that it resembles."""
    operation = operation_of(node, modules)
    return _NEARLY.get(operation, (operation, ""))[0]


def operands_of(node: Node, modules: Mapping[str, nn.Module]) -> tuple[Any, ...]:
    """Return the positional arguments of a node, without the FloatFunctional whose method is called."""
    return node.args[1:] if is_functional_call(node, modules) else node.args


def is_functional_call(node: Node, modules: Mapping[str, nn.Module]) -> bool:
    """Tell whether a node calls a method of a FloatFunctional."""
    path = method_module(node, modules)
    return path is not None and type(modules.get(path)) is FloatFunctional

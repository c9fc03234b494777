"""Edits of converted graphs: small, in place, and refused with a reason where the graph is not what they expect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.fx import Node

from bpu_qat_nn import QuantizedGraphModule, QuantStub
from bpu_qat_nn.ops.stubs import QuantizedQuantStub

from .errors import SurgeryError

__all__ = ["input_stubs", "insert_after"]


def input_stubs(quantized: QuantizedGraphModule) -> dict[str, Node]:
    """Return the nodes that quantize an input, by the path of their QuantStub, in the order of the graph.

    Stubs behind other modules, which mark the borders of segments, are not among them.
    """
    modules = dict(quantized.named_modules(remove_duplicate=False))
    found: dict[str, Node] = {}
    for node in quantized.graph.nodes:
        is_stub = node.op == "call_module" and isinstance(modules[str(node.target)], (QuantizedQuantStub, QuantStub))
        if is_stub and all(_from_outside(source) for source in node.all_input_nodes):
            found[str(node.target)] = node
    return found


def _from_outside(node: Node) -> bool:
    """Whether a value is an input, or picked out of one."""
    if node.op == "placeholder":
        return True
    picks = node.op == "call_function" and getattr(node.target, "__name__", "") == "getitem"
    return picks and all(_from_outside(source) for source in node.all_input_nodes)


def insert_after(
    quantized: QuantizedGraphModule, node: Node, function: Callable[..., Any], arguments: Mapping[str, Any]
) -> Node:
    """Insert ``function(node, **arguments)`` behind a node, for all that used the node; the graph is changed in place.

    Raises:
        SurgeryError: the node belongs to another graph.
    """
    if node.graph is not quantized.graph:
        raise SurgeryError(f"node {node.name} belongs to another graph; take it from quantized.graph")
    with quantized.graph.inserting_after(node):
        inserted = quantized.graph.call_function(function, (node,), dict(arguments))
    node.replace_all_uses_with(inserted)
    inserted.args = (node,)  # the line above redirected this use as well
    quantized.graph.lint()
    quantized.recompile()
    return inserted

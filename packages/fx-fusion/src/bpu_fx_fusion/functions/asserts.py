"""Asserts about the number of axes: gone from a graph where the layer before them settles it."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Final

import torch
from torch import nn
from torch.fx import Node

from ..graph.graph_module import GraphModuleWithAttr
from .normalization import shape_behind_layer

__all__ = ["erase_settled_asserts"]

_COMPARISONS: Final = frozenset(getattr(operator, name) for name in ("eq", "ne", "ge", "gt", "le", "lt"))


def erase_settled_asserts(gm: GraphModuleWithAttr) -> None:
    """Erase asserts that hold behind the layer whose output they ask for its number of axes, in place.

    What reads that number is a user of the layer in the graph, though not of its value, and would keep a BatchNorm from
    being folded.

    Given:  `conv = self.conv(x);  _assert(conv.ndim == 4, "4D input");  bn = self.bn(conv)`
    Result: `conv = self.conv(x);  bn = self.bn(conv)`
    """
    modules = dict(gm.named_modules(remove_duplicate=False))
    known: dict[Node, int | bool] = {}
    for node in gm.graph.nodes:
        axes = _axes_read(node, modules)
        if axes is not None:
            known[node] = axes
        elif node.target in _COMPARISONS and all(isinstance(each, int) or each in known for each in node.args):
            known[node] = node.target(*(known.get(each, each) for each in node.args))
    settled = {node for node in gm.graph.nodes if node.target is torch._assert and known.get(node.args[0]) is True}
    for node in reversed(list(gm.graph.nodes)):
        if node in settled or (node in known and not node.users):
            gm.graph.erase_node(node)
    gm.recompile()


def _axes_read(node: Node, modules: Mapping[str, nn.Module]) -> int | None:
    """Return the number of axes that a node reads off a layer's output; None if it reads something else."""
    by_attribute = node.op == "call_function" and node.target is getattr and node.args[1] == "ndim"
    by_method = node.op == "call_method" and node.target in ("dim", "ndimension")
    if not (by_attribute or by_method) or not isinstance(node.args[0], Node):
        return None
    shape = shape_behind_layer(node.args[0], modules)
    return None if shape is None else len(shape)

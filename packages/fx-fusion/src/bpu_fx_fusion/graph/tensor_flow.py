"""Which nodes of a graph are not tensors: sizes, shapes and what is computed from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import nn
from torch.fx import Graph, Node

from .nodes import method_module

_SIZES: Final = frozenset(
    {"size", "dim", "ndimension", "numel", "nelement", "element_size", "stride", "storage_offset"}
)
_VALUES: Final = frozenset({"item", "tolist", "get_device", "is_contiguous", "is_floating_point", "keys"})
_GETTER_METHODS: Final = _SIZES | _VALUES
_GETTER_ATTRIBUTES: Final = frozenset(
    {"shape", "ndim", "dtype", "device", "layout", "is_cuda", "requires_grad", "itemsize", "nbytes"}
)
_PLAIN_TYPES: Final = (int, float, bool, str, torch.Size)
_PLAIN_NAMES: Final = frozenset(t.__name__ for t in _PLAIN_TYPES)


def non_tensors(graph: Graph, modules: Mapping[str, nn.Module] | None = None) -> frozenset[Node]:
    """Return the nodes whose value cannot be a tensor.

    These are the results of `size()`, `shape` and other getters, arguments and wrapped code annotated as numbers, and
    what operators and functions outside torch compute from only such values. Everything else may be a tensor.

    Args:
        graph: The graph.
        modules: The modules by path; without them, the annotations of wrapped methods are not seen.
    """
    found: set[Node] = set()
    for node in graph.nodes:  # in order of execution, so inputs are decided before their users
        if _is_plain_source(node, modules or {}) or _is_computed_from(node, found):
            found.add(node)
    return frozenset(found)


def _is_plain_source(node: Node, modules: Mapping[str, nn.Module]) -> bool:
    if node.op == "placeholder":
        return _is_plain_type(node.type)
    if node.op == "call_method":
        owner = method_module(node, modules)
        if owner is None:
            return node.target in _GETTER_METHODS
        return _returns_plain(getattr(modules.get("" if owner == "itself" else owner), str(node.target), None))
    if node.op != "call_function":
        return False
    if node.target is getattr:
        return node.args[1] in _GETTER_ATTRIBUTES
    return node.target in (len, int, float, bool) or _returns_plain(node.target)


def _is_computed_from(node: Node, plain: set[Node]) -> bool:
    if not node.all_input_nodes or not plain.issuperset(node.all_input_nodes):
        return False
    if node.op == "call_method":
        return True  # a method of something that is no tensor
    return node.op == "call_function" and not _belongs_to_torch(node.target)


def _returns_plain(function: Any) -> bool:
    return _is_plain_type(getattr(function, "__annotations__", {}).get("return"))


def _belongs_to_torch(function: Any) -> bool:
    # Functions of torch that take only sizes create tensors: zeros, arange, ...
    owner = getattr(function, "__module__", None) or ""
    return owner.split(".")[0] == "torch" or getattr(torch, getattr(function, "__name__", ""), None) is function


def _is_plain_type(annotation: Any) -> bool:
    # Annotations are strings where `from __future__ import annotations` is in force.
    return isinstance(annotation, type | str) and (annotation in _PLAIN_TYPES or annotation in _PLAIN_NAMES)

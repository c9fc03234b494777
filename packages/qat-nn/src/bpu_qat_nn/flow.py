"""Which values of a traced model are quantized: from the QuantStubs to the DeQuantStubs, node by node."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Container, Iterator, Mapping
from enum import Enum
from typing import Any

from torch import nn
from torch.fx import Node
from torch.fx.node import map_arg

from bpu_fx_fusion import FloatFunctional, GraphModuleWithAttr, foreign_name, non_tensors, owner_of

from .color import centered_yuv2bgr, centered_yuv2rgb
from .moves import MOVES
from .op import OpRow
from .ops import OPS
from .ops.stubs import QATDeQuantStub, QATQuantStub
from .torch_ao import own_type

__all__ = [
    "Kind",
    "call_arguments",
    "called_module",
    "function_path",
    "is_wrapped",
    "kinds_of",
    "moves",
    "place_of",
    "row_of",
    "tensor_inputs",
]


class Kind(Enum):
    """What a node's value is."""

    FLOAT = "a real tensor"
    QUANTIZED = "a quantized tensor"
    OPAQUE = "whatever wrapped code returns"
    OTHER = "no tensor"


_QUANTIZED_FUNCTIONS = (centered_yuv2rgb, centered_yuv2bgr)


def row_of(module: nn.Module) -> OpRow | None:
    """Return the row of OPS for a float module, by exact type."""
    return OPS.get(own_type(type(module)))


def called_module(node: Node, modules: Mapping[str, nn.Module]) -> tuple[str, nn.Module] | None:
    """Return path and module that a node calls, itself or by a method of FloatFunctional."""
    if node.op == "call_module":
        return str(node.target), modules[str(node.target)]
    first = node.args[0] if node.op == "call_method" and node.args else None
    if isinstance(first, Node) and first.op == "get_attr":
        module = modules.get(str(first.target))
        if isinstance(module, FloatFunctional):
            return str(first.target), module
    return None


def tensor_inputs(node: Node, kinds: Mapping[Node, Kind]) -> list[Node]:
    """Return the nodes that a node takes tensors, or unknown things, from."""
    found: list[Node] = []

    def visit(source: Node) -> Node:
        if kinds.get(source, Kind.OTHER) is not Kind.OTHER:
            found.append(source)
        return source

    map_arg((node.args, node.kwargs), visit)
    return found


def place_of(node: Node, modules: Mapping[str, nn.Module]) -> str:
    """Return the path of the module that a node calls, or else the node's name: what refusals call it."""
    called = called_module(node, modules)
    return node.name if called is None else called[0]


def function_path(node: Node) -> str:
    """Return how the call of a function is named: path of the module whose forward it stands in, name of the node."""
    owner = owner_of(node)
    return f"{owner}.{node.name}" if owner else node.name


def kinds_of(gm: GraphModuleWithAttr, floats: Container[str] = ()) -> dict[Node, Kind]:
    """Return the kind of every node's value, assuming that whatever can be quantized is.

    Args:
        gm: the fused model.
        floats: places that stay in float.
    """
    modules = dict(gm.named_modules(remove_duplicate=False))
    plain = non_tensors(gm.graph, modules)
    kinds: dict[Node, Kind] = {}
    for node in gm.graph.nodes:
        kinds[node] = Kind.OTHER if node in plain else _kind(node, modules, kinds)
        if kinds[node] is Kind.QUANTIZED and place_of(node, modules) in floats:
            kinds[node] = Kind.FLOAT
    return kinds


def _kind(node: Node, modules: Mapping[str, nn.Module], kinds: Mapping[Node, Kind]) -> Kind:
    if node.op == "placeholder":
        return Kind.FLOAT
    if node.op == "get_attr":
        return Kind.OTHER if str(node.target) in modules or node.target == "itself" else Kind.FLOAT
    called = called_module(node, modules)
    if called is not None:
        row = row_of(called[1])
        if row is not None and row.qat in (QATQuantStub, QATDeQuantStub):
            return Kind.QUANTIZED if row.qat is QATQuantStub else Kind.FLOAT
    elif is_wrapped(node, modules):
        return Kind.OPAQUE
    if node.op == "call_function" and node.target in _QUANTIZED_FUNCTIONS:
        return Kind.QUANTIZED
    found = {kinds[source] for source in tensor_inputs(node, kinds)}
    for kind in (Kind.QUANTIZED, Kind.OPAQUE):
        if kind in found:
            return kind
    return Kind.FLOAT


def is_wrapped(node: Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a node runs code of the user's that was kept whole."""
    if node.op == "call_method":
        first = node.args[0] if node.args else None
        if not isinstance(first, Node) or first.op != "get_attr":
            return False
        return first.target == "itself" or str(first.target) in modules
    if node.op != "call_function" or foreign_name(node.target) is not None:
        return False
    owner = (getattr(node.target, "__module__", None) or "").split(".")[0]
    return owner not in ("torch", "_operator", "builtins", "math", "bpu_qat_nn")


def moves(node: Node) -> bool:
    """Whether a node only moves the elements of a quantized tensor, or picks one of several."""
    if node.op == "call_method":
        return str(node.target) in MOVES
    name = getattr(node.target, "__name__", "")
    return node.op == "call_function" and (name in MOVES or node.target is operator.getitem)


def call_arguments(node: Node, module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield by name what a call gives besides the tensors that the module cannot do without."""
    called: Any = getattr(type(module), str(node.target)) if node.op == "call_method" else type(module).forward
    args = node.args[1:] if node.op == "call_method" else node.args
    signature = inspect.signature(called)
    for name, value in signature.bind(module, *args, **node.kwargs).arguments.items():
        parameter = signature.parameters[name]
        if parameter.default is not parameter.empty and value is not None:
            yield name, value

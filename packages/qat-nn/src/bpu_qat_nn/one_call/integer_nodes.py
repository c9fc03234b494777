"""The integer nodes of a converted graph, those between its QuantStubs and DeQuantStubs, as a graph of their own."""

from __future__ import annotations

import operator
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.graph import CodeGen

from ..moves import MOVES, MOVING_MODULES
from ..ops.dropout import QuantizedDropout
from ..ops.stubs import QuantizedDeQuantStub, QuantizedQuantStub
from ..quantized_module import QuantizedModule

__all__ = ["IntegerNodes", "integer_nodes"]


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerNodes:
    """A graph in three parts: what comes before, the integer nodes, and what comes after."""

    before: tuple[Node, ...]
    stubs: tuple[Node, ...]
    """Those of ``before`` that the integer nodes read."""
    inside: tuple[Node, ...]
    outputs: tuple[Node, ...]
    """Those of ``inside`` that are read behind them."""
    after: tuple[Node, ...]

    @property
    def modules(self) -> list[str]:
        """Paths of the modules that compute integers, QuantStubs included."""
        return [str(node.target) for node in (*self.stubs, *self.inside) if node.op in ("call_module", "get_attr")]

    def inner(self) -> Callable[..., tuple[Any, ...]]:
        """Return the integer nodes as a function of the model and of what the QuantStubs gave."""
        graph, known = Graph(), dict[Node, Node]()
        for stub in self.stubs:
            known[stub] = graph.placeholder(stub.name)
        _copy(self.inside, graph, known)
        graph.output(tuple(known[node] for node in self.outputs))
        return _function(graph)

    def outer(self, integers: Callable[..., tuple[Any, ...]]) -> Callable[..., Any]:
        """Return the whole graph as a function of the model, twice, and its inputs.

        Args:
            integers: called in the place of the integer nodes, with what ``inner`` takes.
        """
        graph, known = Graph(), dict[Node, Node]()
        model = graph.placeholder("model_with_integers")
        _copy(self.before, graph, known)
        result = graph.call_function(integers, (model, *(known[stub] for stub in self.stubs)))
        for i, node in enumerate(self.outputs):
            known[node] = graph.call_function(operator.getitem, (result, i))
        _copy(self.after, graph, known)
        return _function(graph)


def integer_nodes(model: GraphModule) -> IntegerNodes | None:
    """Return the integer nodes of a converted model.

    None if they are not all of one part, that is, if an integer depends on a real number that depends on an integer; if
    a node that may draw random numbers, or write in place, would change its turn; or if the graph was edited and not
    yet recompiled.
    """
    if type(model.graph._codegen) is not CodeGen or model.graph.python_code("self").src != model.code:
        return None
    stubs, inside = _kinds(model)
    read = {node for each in inside for node in each.all_input_nodes}
    after = _behind(model, inside)
    if not inside or not read <= {*stubs, *inside} or not after.keys().isdisjoint(stubs):
        return None
    before = [node for node in model.graph.nodes if node not in inside and node not in after]
    order = {node: i for i, node in enumerate(model.graph.nodes)}
    overtaken = [node for node in after if order[node] < order[before[-1]]]
    if any(type(_module(model, node)) is not QuantizedDeQuantStub for node in overtaken):
        return None
    return IntegerNodes(
        before=tuple(before),
        stubs=tuple(node for node in stubs if node in read),
        inside=tuple(inside),
        outputs=tuple(node for node in inside if any(user not in inside for user in node.users)),
        after=tuple(after),
    )


def _kinds(model: GraphModule) -> tuple[dict[Node, None], dict[Node, None]]:
    """Return the QuantStubs, and the nodes that compute integers, move them, or tell shapes."""
    stubs: dict[Node, None] = {}
    inside: dict[Node, None] = {}
    numbers: set[Node] = set()
    for node in model.graph.nodes:
        module = _module(model, node)
        sources = node.all_input_nodes
        if isinstance(module, QuantizedQuantStub):
            stubs[node] = None
        elif isinstance(module, QuantizedModule):
            inside[node] = None
        elif any(source in stubs or source in inside for source in sources):
            if _asks(node) or (numbers.issuperset(sources) and _is_of_operator(node)):
                numbers.add(node)
            if node in numbers or _moves(node, module):
                inside[node] = None
    return stubs, inside


def _module(model: GraphModule, node: Node) -> nn.Module | None:
    """Return the module that a node calls or gets, or of which it calls a method, as FloatFunctional's are."""
    if node.op == "call_method":
        owner = node.args[0] if node.args else None
        return _module(model, owner) if isinstance(owner, Node) and owner.op == "get_attr" else None
    if node.op not in ("call_module", "get_attr"):
        return None
    found: Any = model
    for name in str(node.target).split("."):
        found = getattr(found, name)
    return found if isinstance(found, nn.Module) else None


def _asks(node: Node) -> bool:
    """Whether a node asks for a shape, which is the same for all inputs of the same shapes."""
    if node.op == "call_method":
        return node.target in ("size", "dim")
    return node.target is getattr and node.args[1:] == ("shape",)


def _is_of_operator(node: Node) -> bool:
    """Whether a node is an operator of Python, such as ``//`` or ``[]``."""
    return node.op == "call_function" and getattr(node.target, "__module__", "") == operator.floordiv.__module__


def _moves(node: Node, module: nn.Module | None) -> bool:
    """Whether a node is a module, a method or a function of torch itself that moves elements."""
    if module is not None:
        return type(module) in (*MOVING_MODULES, QuantizedDropout)
    if node.op == "call_method":
        return node.target in MOVES
    name = getattr(node.target, "__name__", "")
    return node.target is operator.getitem or (name in MOVES and node.target is getattr(torch, name, None))


def _behind(model: GraphModule, inside: Container[Node]) -> dict[Node, None]:
    """Return the other nodes that depend on integer nodes, and the output, in order."""
    found: dict[Node, None] = {}
    for node in model.graph.nodes:
        depends = any(source in inside or source in found for source in node.all_input_nodes)
        if node not in inside and (depends or node.op == "output"):
            found[node] = None
    return found


def _copy(nodes: Iterable[Node], graph: Graph, known: dict[Node, Node]) -> None:
    for node in nodes:
        known[node] = graph.node_copy(node, known.__getitem__)


def _function(graph: Graph) -> Callable[..., Any]:
    """Return a graph as a function of the module whose submodules it calls, and of its inputs."""
    code = graph.python_code("self")
    scope = dict(code.globals)
    exec(code.src, scope)
    made: Callable[..., Any] = scope["forward"]
    return made

"""Cut: build the graph modules of the parts of a converted model, with stubs where quantized tensors enter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch.fx
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from bpu_fx_fusion import GraphModuleWithAttr, copy_structure
from bpu_qat_nn import QTensor, QuantizedGraphModule
from bpu_qat_nn.ops.stubs import QuantizedQuantStub

from ..errors import SurgeryError
from .ports import named_tensors
from .stages import EVERYWHERE, Stages

__all__ = ["Part", "result_of", "segment_parts"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """A part of the model, not lowered yet."""

    name: str
    on_bpu: bool
    module: GraphModule
    outside: tuple[str, ...]
    """Names of the tensors of the whole model's inputs among ``given``."""
    given: Mapping[str, Any]
    """Inputs by name with their values for the example."""
    gives: Mapping[str, Any]
    """Outputs likewise."""


def segment_parts(whole: QuantizedGraphModule, stages: Stages) -> list[Part]:
    """Return the parts in the order in which they run."""
    used = sorted({position for position in stages.positions.values() if position != EVERYWHERE})
    return [_part(whole, stages, position) for position in used]


def result_of(whole: QuantizedGraphModule, stages: Stages) -> GraphModule:
    """Return the module that makes the whole model's result of what the parts give."""
    (output,) = (node for node in whole.graph.nodes if node.op == "output")
    build = _Builder(whole, stages, [], output.all_input_nodes)
    build.graph.output(map_arg(output.args[0], build.value_of))
    return build.module(GraphModuleWithAttr)


def _part(whole: QuantizedGraphModule, stages: Stages, position: int) -> Part:
    nodes = [node for node in stages.nodes if stages.positions[node] == position]
    on_bpu = position % 2 == 0
    build = _Builder(whole, stages, nodes, [each for node in nodes for each in node.all_input_nodes])
    if on_bpu:
        build.quantize_what_crosses()
    for node in nodes:
        build.copy(node)
    gives = [node for node in nodes if _leaves(node, stages, position)]
    build.graph.output({node.name: build.value_of(node) for node in gives})
    return Part(
        name=f"stage{position // 2 + 1}" if on_bpu else f"cpu{position // 2 + 1}",
        on_bpu=on_bpu,
        module=build.module(QuantizedGraphModule if on_bpu else GraphModuleWithAttr),
        outside=tuple(
            name
            for node in build.inputs
            if node.op == "placeholder"
            for name in named_tensors(str(node.target), stages.values[node])
        ),
        given={_input_name(node): stages.values[node] for node in build.inputs},
        gives={node.name: stages.values[node] for node in gives},
    )


def _leaves(node: Node, stages: Stages, position: int) -> bool:
    """Whether another part, or the result, needs a node."""
    if stages.is_number(node):
        return False
    return any(user.op == "output" or stages.positions[user] != position for user in node.users)


def _input_name(node: Node) -> str:
    return str(node.target) if node.op == "placeholder" else node.name


class _Builder:
    """Copies nodes of the whole model into the graph of one part.

    Args:
        whole: the model.
        stages: where its nodes belong.
        nodes: the part's own.
        needed: nodes whose values it needs.
    """

    def __init__(self, whole: QuantizedGraphModule, stages: Stages, nodes: list[Node], needed: Iterable[Node]) -> None:
        self.whole, self.stages, self.nodes = whole, stages, nodes
        self.graph, self.copies = Graph(), dict[Node, Node]()
        self.stubs: dict[str, QuantizedQuantStub] = {}
        self.stub_of: dict[Node, str] = {}
        own, found = set(nodes), self._with_sources(needed)
        self.inputs = [node for node in stages.nodes if node in found and self._comes_in(node, own)]
        for node in self.inputs:
            self.copies[node] = self.graph.placeholder(_input_name(node))
        for node in stages.nodes:
            everywhere = stages.positions[node] == EVERYWHERE and not stages.is_number(node)
            if node in found and node not in self.copies and everywhere:
                self.copy(node)

    def _with_sources(self, needed: Iterable[Node]) -> set[Node]:
        """Return nodes with all that they need among those that each part has for itself."""
        found: set[Node] = set()
        waiting = list(needed)
        while waiting:
            node = waiting.pop()
            if node not in found:
                found.add(node)
                number = self.stages.is_number(node)
                waiting += node.all_input_nodes if self.stages.positions[node] == EVERYWHERE and not number else []
        return found

    def _comes_in(self, node: Node, own: set[Node]) -> bool:
        if node.op == "placeholder":
            return True
        return node not in own and self.stages.positions[node] != EVERYWHERE and not self.stages.is_number(node)

    def value_of(self, node: Node) -> Any:
        """Return the copy of a node; a size that another part computed becomes a constant."""
        return self.copies[node] if node in self.copies else self.stages.values[node]

    def copy(self, node: Node) -> None:
        """Copy a node that the part computes itself."""
        self.copies[node] = self.graph.node_copy(node, self.value_of)
        self.copies[node].target = self.stub_of.get(node, node.target)

    def quantize_what_crosses(self) -> None:
        """Give each quantized tensor that comes in a stub of its scale: the one at the cut, or one of its own."""
        for node in self.inputs:
            value = self.stages.values[node]
            if not isinstance(value, QTensor):
                continue
            if value.per_channel_axis >= 0:
                raise SurgeryError(
                    f"{node.name} is a high-precision tensor ({value.dtype}) that a later stage reads; give the layer "
                    "that computes it a qconfig with an activation part"
                )
            users = [user for user in self.nodes if node in user.all_input_nodes]
            if all(self.stages.is_stub(user) for user in users):
                for user in users:
                    self.stub_of[user] = self._add_stub(str(user.target), value)
            else:
                path = self._add_stub(f"{node.name}_quant", value)
                self.copies[node] = self.graph.call_module(path, (self.copies[node],))

    def _add_stub(self, wanted: str, value: QTensor) -> str:
        """Add a stub of a tensor's scale at a path, or beside it where one stub saw several tensors."""
        path, count = wanted, 1
        while path in self.stubs:
            path, count = f"{wanted}_{count}", count + 1
        self.stubs[path] = QuantizedQuantStub.of(value.scale, value.dtype, path)
        return path

    def module(self, cls: type[GraphModuleWithAttr]) -> GraphModule:
        """Return the graph as a module that holds what it needs of the whole model."""
        self.graph.lint()
        root = copy_structure(self.whole)
        for path, stub in self.stubs.items():
            parent, _, name = path.rpartition(".")
            root.get_submodule(parent)._modules[name] = stub
        if not any(node.op == "get_attr" and node.target == "itself" for node in self.graph.nodes):
            root = torch.fx.GraphModule(root, self.graph)
        made = cls(root, self.graph, type(self.whole).__name__)
        if isinstance(made, QuantizedGraphModule):
            made.march = self.whole.march
        return made

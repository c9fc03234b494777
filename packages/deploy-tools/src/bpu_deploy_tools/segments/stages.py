"""Stages: which part of a converted model each node belongs to when the model is cut at its inner QuantStubs.

Parts run one after the other. Even positions are stages on the BPU, odd ones steps on the CPU behind them:

    0: backbone    1: proposals (real values)    2: QuantStub -> head
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.fx import Interpreter, Node
from torch.utils._pytree import tree_leaves, tree_map

from bpu_fx_fusion import non_tensors
from bpu_qat_nn import QTensor, QuantizedGraphModule
from bpu_qat_nn.flow import is_wrapped
from bpu_qat_nn.ops.stubs import QuantizedDeQuantStub, QuantizedQuantStub

__all__ = ["EVERYWHERE", "Stages", "observed_values"]

EVERYWHERE = -2
"""Position of what each part has for itself: inputs, what is picked out of them, constants."""


def observed_values(quantized: QuantizedGraphModule, arguments: tuple[Any, ...]) -> dict[Node, Any]:
    """Run a model once and return what every node gives."""
    watching = _Watching(quantized)
    watching.run(*_with_own_containers(arguments))
    return watching.values


def _with_own_containers(value: Any) -> Any:
    """Copy lists and dicts, not what is in them: wrapped code may add to those that it is given."""
    return tree_map(lambda leaf: leaf, value)


class _Watching(Interpreter):
    def __init__(self, module: QuantizedGraphModule) -> None:
        super().__init__(module)
        self.extra_traceback = False
        self.values: dict[Node, Any] = {}

    def run_node(self, n: Node) -> Any:
        """Run a node and keep its value."""
        result = super().run_node(n)
        self.values[n] = _with_own_containers(result)
        return result


class Stages:
    """Positions of all nodes of a converted model.

    Args:
        quantized: the model.
        values: what every node gives for an example.
    """

    def __init__(self, quantized: QuantizedGraphModule, values: Mapping[Node, Any]) -> None:
        self.values = values
        self.modules = dict(quantized.named_modules(remove_duplicate=False))
        self.plain = non_tensors(quantized.graph, self.modules)
        """Sizes and what is computed from them."""
        self.nodes = [node for node in quantized.graph.nodes if node.op != "output"]
        self.positions: dict[Node, int] = {}
        for node in self.nodes:
            self.positions[node] = self._earliest(node)
        for node in reversed(self.nodes):
            self.positions[node] = self._latest(node)

    def is_stub(self, node: Node) -> bool:
        """Whether a node quantizes."""
        return node.op == "call_module" and isinstance(self.modules[str(node.target)], QuantizedQuantStub)

    def starts_stage(self, node: Node) -> bool:
        """Whether a node is a QuantStub inside the model, where it is cut."""
        return self.is_stub(node) and any(self.positions[each] != EVERYWHERE for each in node.all_input_nodes)

    def is_number(self, node: Node) -> bool:
        """Whether a node is a size or computed from sizes, as it stays for inputs of one shape."""
        return node in self.plain and not is_wrapped(node, self.modules)

    def on_bpu(self, node: Node) -> bool:
        """Whether a node gives quantized tensors, or dequantizes some."""
        if node.op == "call_module" and isinstance(self.modules[str(node.target)], QuantizedDeQuantStub):
            return any(holds_quantized(self.values[each]) for each in node.all_input_nodes)
        return holds_quantized(self.values[node])

    def _earliest(self, node: Node) -> int:
        """Return the first part that has all that a node needs."""
        before = [p for p in (self.positions[each] for each in node.all_input_nodes) if p != EVERYWHERE]
        if not before and (self._is_given(node) or self.is_number(node)):
            return EVERYWHERE
        if self.is_number(node):
            return max(before)
        if not self.on_bpu(node):
            return max([-1, *(p + 1 - p % 2 for p in before)])
        cut = 2 if self.is_stub(node) else 0
        return max([0, *(p + 1 if p % 2 else p + cut for p in before)])

    def _is_given(self, node: Node) -> bool:
        picks = node.op == "call_function" and node.target is operator.getitem
        return node.op in ("placeholder", "get_attr") or (picks and not self.on_bpu(node))

    def _latest(self, node: Node) -> int:
        """Return the first part that uses a node: what only a later stage needs is computed there.

        What is cut, dequantized or handed out stays where it is, and so does a part picked out of several tensors.
        """
        own = self.positions[node]
        picked = node.op == "call_function" and node.target is operator.getitem
        if own == EVERYWHERE or not self.on_bpu(node) or (picked and not isinstance(self._picked_from(node), Tensor)):
            return own
        used = [own if user.op == "output" or self._is_border(user) else self.positions[user] for user in node.users]
        return max(own, min(used, default=own))

    def _picked_from(self, node: Node) -> Any:
        return self.values[node.all_input_nodes[0]]

    def _is_border(self, user: Node) -> bool:
        return self.starts_stage(user) or self.is_number(user) or not self.on_bpu(user)


def holds_quantized(value: Any) -> bool:
    """Whether a value is or contains a quantized tensor."""
    return any(isinstance(leaf, QTensor) for leaf in tree_leaves(value))

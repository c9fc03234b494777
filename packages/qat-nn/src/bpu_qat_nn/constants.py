"""Constants between quantized operators: parameters, and what is computed from them alone, get a QuantStub each."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.fx import Node

from bpu_fx_fusion import GraphModuleWithAttr

from .flow import Kind, called_module, kinds_of, row_of, tensor_inputs
from .ops.stubs import QATDeQuantStub, QATQuantStub, QuantStub

__all__ = ["constants_of", "quantize_constants"]


def constants_of(gm: GraphModuleWithAttr, kinds: Mapping[Node, Kind]) -> frozenset[Node]:
    """Return the real tensors that do not depend on the model's inputs."""
    modules = dict(gm.named_modules(remove_duplicate=False))
    found: set[Node] = set()
    for node in gm.graph.nodes:
        if kinds[node] is not Kind.FLOAT or node.op == "placeholder" or _is_stub(node, modules):
            continue
        if all(source in found for source in tensor_inputs(node, kinds)):
            found.add(node)
    return frozenset(found)


def quantize_constants(gm: GraphModuleWithAttr) -> None:
    """Put a QuantStub between every constant and the quantized operators that take it, in place.

    Given:  `add = self.add.add(quantized, self.position)`
    Result: `position_1 = self._generated_constant_0(self.position);  add = self.add.add(quantized, position_1)`
    """
    kinds = kinds_of(gm)
    modules = dict(gm.named_modules(remove_duplicate=False))
    stubs: dict[Node, Node] = {}
    constants = constants_of(gm, kinds)
    for constant in [node for node in gm.graph.nodes if node in constants]:
        users = [user for user in constant.users if kinds[user] is Kind.QUANTIZED and _computes(user, modules)]
        if users:
            stubs[constant] = _stub_behind(gm, constant, users[0])
        for user in users:
            user.replace_input_with(constant, stubs[constant])
    if stubs:
        gm.recompile()


def _computes(node: Node, modules: Mapping[str, nn.Module]) -> bool:
    called = called_module(node, modules)
    return called is not None and row_of(called[1]) is not None and not _is_stub(node, modules)


def _is_stub(node: Node, modules: Mapping[str, nn.Module]) -> bool:
    called = called_module(node, modules)
    row = None if called is None else row_of(called[1])
    return row is not None and row.qat in (QATQuantStub, QATDeQuantStub)


def _stub_behind(gm: GraphModuleWithAttr, constant: Node, user: Node) -> Node:
    """Add a QuantStub that belongs to the module whose forward takes the constant; call it right behind it."""
    owner = str(user.meta.get("owner", ""))
    prefix = f"{owner.replace('.', '_')}_generated_constant_"
    number = 0
    while hasattr(gm, f"{prefix}{number}"):
        number += 1
    name = f"{prefix}{number}"
    gm.add_module(name, QuantStub().train(gm.training))
    gm.generated_modules[name] = owner
    with gm.graph.inserting_after(constant):
        node = gm.graph.call_module(name, (constant,))
    node.meta["owner"] = owner
    return node

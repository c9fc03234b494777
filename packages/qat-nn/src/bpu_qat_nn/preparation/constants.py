"""Constants between quantized operators: parameters, and what is computed from them alone, get a QuantStub each.

Constant masks of attention become real numbers first, of a range that integers can hold.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.fx import Node

from bpu_fx_fusion import GraphModuleWithAttr, ScaledDotProduct, register_leaf_module

from ..flow import Kind, call_arguments, called_module, kinds_of, row_of, tensor_inputs
from ..ops.stubs import QATDeQuantStub, QATQuantStub, QuantStub

__all__ = ["constants_of", "quantize_constants"]


@register_leaf_module
class AttentionMask(nn.Module):
    """What is added to the logits of attention, with a lowest number: lower ones only widen the range of integers.

    A row in which everything is masked attends to all alike.
    """

    lowest = -32.0
    """Below the largest of a row; exp(-32) is 1e-14."""

    def forward(self, mask: Tensor) -> Tensor:
        """Return a mask (..., L, S), real or boolean (True: attend), as finite real numbers."""
        if mask.dtype is torch.bool:
            return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, self.lowest)
        largest = mask.amax(-1, keepdim=True).nan_to_num(neginf=0.0)
        return torch.maximum(mask, largest + self.lowest)


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
    _limit_masks(gm)
    kinds = kinds_of(gm)
    modules = dict(gm.named_modules(remove_duplicate=False))
    stubs: dict[Node, Node] = {}
    constants = constants_of(gm, kinds)
    for constant in [node for node in gm.graph.nodes if node in constants]:
        users = [user for user in constant.users if kinds[user] is Kind.QUANTIZED and _computes(user, modules)]
        if users:
            stubs[constant] = _call_behind(gm, constant, QuantStub(), "constant", users[0])
        for user in users:
            user.replace_input_with(constant, stubs[constant])
    if stubs:
        gm.recompile()


def _limit_masks(gm: GraphModuleWithAttr) -> None:
    """Put an AttentionMask behind the constants that attention takes as its mask, in place."""
    modules = dict(gm.named_modules(remove_duplicate=False))
    constants = constants_of(gm, kinds_of(gm))
    for node in list(gm.graph.nodes):
        called = called_module(node, modules)
        if called is not None and isinstance(called[1], ScaledDotProduct) and not called[1].boolean:
            mask = dict(call_arguments(node, called[1])).get("attn_mask")
            if mask in constants:
                node.replace_input_with(mask, _call_behind(gm, mask, AttentionMask(), "mask", node))


def _computes(node: Node, modules: Mapping[str, nn.Module]) -> bool:
    called = called_module(node, modules)
    return called is not None and row_of(called[1]) is not None and not _is_stub(node, modules)


def _is_stub(node: Node, modules: Mapping[str, nn.Module]) -> bool:
    called = called_module(node, modules)
    row = None if called is None else row_of(called[1])
    return row is not None and row.qat in (QATQuantStub, QATDeQuantStub)


def _call_behind(gm: GraphModuleWithAttr, constant: Node, module: nn.Module, kind: str, user: Node) -> Node:
    """Add a module that belongs to the module whose forward takes the constant; call it right behind it."""
    owner = str(user.meta.get("owner", ""))
    prefix = f"{owner.replace('.', '_')}_generated_{kind}_"
    number = 0
    while hasattr(gm, f"{prefix}{number}"):
        number += 1
    name = f"{prefix}{number}"
    gm.add_module(name, module.train(gm.training))
    gm.generated_modules[name] = owner
    with gm.graph.inserting_after(constant):
        node = gm.graph.call_module(name, (constant,))
    node.meta["owner"] = owner
    return node

"""Hybrid models: operators that stay in float, between stubs that are inserted around them.

Given:  `conv = self.conv(quant);  soft = self.soft(conv);  head = self.head(soft)`, where `soft` stays in float.
Result: `soft` reads `self.soft_input_dequant(conv)`, and `head` reads `self.soft_activation_post_process(soft)`, a
QuantStub.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.fx import Node

from bpu_fx_fusion import FusedModule, GraphModuleWithAttr, type_as_written
from bpu_kernels.march import MarchRow
from bpu_qconfig import QConfig, QConfigMapping

from ..errors import ArgumentError
from ..flow import called_module, kinds_of, place_of, row_of, tensor_inputs
from ..ops.stubs import QATDeQuantStub, QATQuantStub, QuantStub
from .borders import add_stub, dequantize_inputs
from .plan import Plan, plan
from .resolve import QConfigResolver

__all__ = ["Chosen", "plan_hybrid"]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The operators that the user wants in float."""

    names: tuple[str, ...] = ()
    types: tuple[type[nn.Module], ...] = ()

    @classmethod
    def from_dict(cls, hybrid_dict: Mapping[str, Any] | None) -> Chosen:
        """Read ``{"module_name": [paths], "module_type": [types]}``, both optional.

        Raises:
            ArgumentError: an unknown key, or an entry of another kind.
        """
        given = hybrid_dict or {}
        unknown = sorted(given.keys() - {"module_name", "module_type"})
        if unknown:
            raise ArgumentError(f"hybrid_dict knows 'module_name' and 'module_type', got {unknown}")
        names, types = tuple(given.get("module_name", ())), tuple(given.get("module_type", ()))
        wrong = [name for name in names if not isinstance(name, str)]
        wrong += [each for each in types if not (isinstance(each, type) and issubclass(each, nn.Module))]
        if wrong or isinstance(given.get("module_name"), str):
            raise ArgumentError(f"hybrid_dict takes lists of module paths and of module classes, got {wrong or names}")
        return cls(names=names, types=types)

    def places(self, gm: GraphModuleWithAttr, model: nn.Module) -> dict[str, str]:
        """Return the places of the fused model that are chosen, and why.

        Raises:
            ArgumentError: a name is no module of the model, neither as written nor as fused.
        """
        modules = dict(gm.named_modules(remove_duplicate=False))
        known = {*modules, *(name for name, _ in model.named_modules(remove_duplicate=False))}
        missing = [name for name in self.names if name not in known]
        if missing:
            raise ArgumentError(f"hybrid_dict names {missing}, but the model has no such module")
        found: dict[str, str] = {}
        for path, module in modules.items():
            reason = self._reason(gm, path, module)
            if reason and path:
                found[path] = reason
        return found

    def _reason(self, gm: GraphModuleWithAttr, path: str, module: nn.Module) -> str | None:
        members = [path, *gm.fused_modules.get(path, ())]
        members += [gm.generated_modules[each] for each in members if each in gm.generated_modules]
        for name in self.names:
            if any(member == name or member.startswith(f"{name}.") for member in members):
                return f"hybrid_dict names {name}"
        parts = [module, *module.children()] if isinstance(module, FusedModule) else [module]
        named = next((kind for kind in map(type_as_written, parts) if kind in self.types), None)
        return None if named is None else f"hybrid_dict names the type {named.__name__}"


def plan_hybrid(
    gm: GraphModuleWithAttr, mapping: QConfigMapping, places: Mapping[str, str], row: MarchRow
) -> tuple[GraphModuleWithAttr, Plan]:
    """Return the model with stubs around what stays in float, and the plan for it.

    What cannot be quantized joins the places until nothing is refused that could stay in float.

    Args:
        gm: the fused model; it is not changed.
        mapping: what the user wrote.
        places: chosen to stay in float, and why.
        row: the march.
    """
    floats = dict(places)
    while True:
        edited = _with_stubs(gm, floats, mapping)
        decided = plan(edited, QConfigResolver(edited, mapping), row, floats)
        refused = {refusal.path: refusal.reason for refusal in decided.refusals if refusal.floatable}
        if not refused:
            return edited, decided
        more = _first(edited, refused, QConfigResolver(edited, mapping))
        floats.update({**more, **_other_paths(gm, more)})


def _first(gm: GraphModuleWithAttr, refused: Mapping[str, str], resolver: QConfigResolver) -> dict[str, str]:
    """Return the refused places that do not read from another: once that one is in float, they may be as well."""
    behind: set[Node] = set()
    found: dict[str, str] = {}
    for node in gm.graph.nodes:
        place, reads = place_of(node, resolver.modules), not behind.isdisjoint(node.all_input_nodes)
        if place in refused and not reads:
            found[place] = refused[place]
        if place in refused or (reads and not _belongs_on_bpu(node, resolver)):
            behind.add(node)
    return found


def _other_paths(gm: GraphModuleWithAttr, places: Mapping[str, str]) -> dict[str, str]:
    """Return the other paths of modules that hang at several places: a module is in float at all of them."""
    modules = dict(gm.named_modules(remove_duplicate=False))
    reasons = {id(modules[path]): reason for path, reason in places.items() if path in modules}
    return {path: reasons[id(module)] for path, module in modules.items() if id(module) in reasons}


def _with_stubs(gm: GraphModuleWithAttr, floats: Mapping[str, str], mapping: QConfigMapping) -> GraphModuleWithAttr:
    edited = copy.copy(gm)
    _quantize_results(edited, floats, QConfigResolver(edited, mapping))
    dequantize_inputs(edited, floats)
    edited.recompile()
    return edited


def _quantize_results(gm: GraphModuleWithAttr, floats: Mapping[str, str], resolver: QConfigResolver) -> None:
    """Put a QuantStub between a place in float, or what follows it in float, and an operator of the BPU."""
    kinds, stubs = kinds_of(gm), dict[Node, Node]()
    real: set[Node] = set()
    for node in list(gm.graph.nodes):
        inputs = tensor_inputs(node, kinds)
        if place_of(node, resolver.modules) in floats:
            real.add(node)
        elif _is_stub(node, resolver):
            continue
        elif _belongs_on_bpu(node, resolver):
            for source in real.intersection(inputs):
                if source not in stubs:
                    stubs[source] = _insert_quant_stub(gm, source, node, resolver)
                node.replace_input_with(source, stubs[source])
        elif inputs and real.issuperset(inputs):
            real.add(node)


def _is_stub(node: Node, resolver: QConfigResolver) -> bool:
    called = called_module(node, resolver.modules)
    row = None if called is None else row_of(called[1])
    return row is not None and row.qat in (QATQuantStub, QATDeQuantStub)


def _belongs_on_bpu(node: Node, resolver: QConfigResolver) -> bool:
    called = called_module(node, resolver.modules)
    return called is not None and row_of(called[1]) is not None and resolver.qconfig_of(*called) is not None


def _insert_quant_stub(gm: GraphModuleWithAttr, source: Node, user: Node, resolver: QConfigResolver) -> Node:
    """Insert a QuantStub behind a real value, with the qconfig of what computes it, or else of what reads it."""
    candidates = [
        resolver.qconfig_of(*called) for node in (source, user) if (called := called_module(node, resolver.modules))
    ]
    quantizing = [qconfig for qconfig in candidates if qconfig is not None and qconfig.activation is not None]
    stub = QuantStub(qconfig=next(iter(quantizing), QConfig(activation=None, weight=None)))
    path = add_stub(gm, f"{place_of(source, resolver.modules)}_activation_post_process", stub)
    with gm.graph.inserting_after(source):
        return gm.graph.call_module(path, (source,))

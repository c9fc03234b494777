"""`fuse_fx`: trace a model, turn functions into modules, and fuse what matches a pattern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.fx import Graph, Node

from .errors import ConfigError
from .functions.asserts import erase_settled_asserts
from .functions.to_module import functional_to_module
from .fusion import default_patterns as default_patterns  # registers them
from .fusion.find import find_matches
from .fusion.handlers import FusionContext, FusionHandler
from .fusion.sharing import members_of, settle_shared
from .graph.graph_module import GraphModuleWithAttr
from .graph.nodes import called_module
from .graph.structure import replace_module
from .report import Fused, FusionReport
from .tracing.tracer import trace


def fuse_fx(
    model: nn.Module,
    fuse_custom_config_dict: Mapping[str, Any] | None = None,
    *,
    absorb_batch_norm: bool = True,
    example_inputs: Any = None,
) -> GraphModuleWithAttr:
    """Return the model as a graph module in which matching operations are fused modules.

    The model itself keeps computing what it did, but shares parameters and unfused modules with the result. Training
    flags stay as they are. BatchNorms are folded with their running statistics, whether the model trains or not.

    Given:  `conv = self.conv(x);  bn = self.bn(conv);  add = bn + y;  relu = self.relu(add)`
    Result: `add_1 = self._generated_add_0(x, y)`, where `_generated_add_0` is a ConvAddReLU2d and `conv`, `bn` and
    `relu` are nn.Identity.

    Args:
        model: A float model, or a graph module, which may have been fused before.
        fuse_custom_config_dict: `{"preserved_attributes": [names]}`; all attributes are kept in any case, the names
            are only checked.
        absorb_batch_norm: Fold BatchNorms into the layers before them; otherwise they become the child `bn` of the
            fused module.
        example_inputs: A tensor, a tuple of what the forward takes, or a dict of it by name. Where given, the forward
            may choose branches, loop and compute by sizes: all lengths but the batch become numbers, so the result is
            for inputs of these sizes.

    Returns:
        The fused model. Its `fusion_report` tells what was fused and what was not, `fused_modules` which modules each
        fused module was made from, `generated_modules` which modules replaced functions.

    Raises:
        TraceError: The model cannot be traced.
        ConfigError: The configuration has another key, or names an attribute that the model does not have.
    """
    _check_config(model, fuse_custom_config_dict or {})
    gm = trace(model, example_inputs)
    kept_functions = functional_to_module(gm)
    erase_settled_asserts(gm)
    context = _context(gm, absorb_batch_norm)
    handlers, near_misses = find_matches(gm.graph, context)
    groups, shared = settle_shared(handlers, context)
    fused = tuple(_fuse(gm, group, context) for group in groups)
    _replace_uncalled(gm, fused, context)
    gm.recompile()
    gm.fusion_report = FusionReport(
        fused=gm.fusion_report.fused + fused, not_fused=(*near_misses, *shared), kept_functions=kept_functions
    )
    return gm


def _check_config(model: nn.Module, config: Mapping[str, Any]) -> None:
    unknown = sorted(config.keys() - {"preserved_attributes"})
    if unknown:
        raise ConfigError(f"fuse_custom_config_dict knows only 'preserved_attributes', got {unknown}.")
    missing = [name for name in config.get("preserved_attributes", ()) if not hasattr(model, name)]
    if missing:
        raise ConfigError(f"preserved_attributes names {missing}, which {type(model).__name__} does not have.")


def _context(gm: GraphModuleWithAttr, absorb_batch_norm: bool) -> FusionContext:
    modules = dict(gm.named_modules(remove_duplicate=False))
    calls: dict[int, tuple[Node, ...]] = {}
    for node in gm.graph.nodes:
        path = called_module(node, modules)
        if path in modules:
            calls[id(modules[path])] = (*calls.get(id(modules[path]), ()), node)
    read = frozenset(str(node.target).rpartition(".")[0] for node in gm.graph.nodes if node.op == "get_attr")
    return FusionContext(modules=modules, calls=calls, read=read, absorb_batch_norm=absorb_batch_norm)


def _fuse(gm: GraphModuleWithAttr, group: Sequence[FusionHandler], context: FusionContext) -> Fused:
    """Put the fused module of a group into its place and call it wherever the group's matches are."""
    first, members, slot = group[0], members_of(group), context.label(group[0].slot)
    module = first.build()
    fused = Fused(slot=slot, members=members, pattern=" + ".join(first.operations), result=type(module).__name__)
    replace_module(gm, context.module(first.slot), module)
    for handler in group:
        _call_instead(gm.graph, slot, handler)
    gm.fused_modules[slot] = members
    return fused


def _call_instead(graph: Graph, path: str, handler: FusionHandler) -> None:
    """Replace matched nodes by one call of the module at `path`, which takes over the slot's name."""
    slot, name = handler.slot, handler.slot.name
    with graph.inserting_before(slot):
        call = graph.create_node("call_module", path, handler.inputs)
    call.meta = dict(slot.meta)
    handler.match.nodes[0].replace_all_uses_with(call)
    for node in handler.match.nodes:
        feeding = node.all_input_nodes
        graph.erase_node(node)
        for functional in feeding:
            if functional.op == "get_attr" and not functional.users:
                graph.erase_node(functional)
    call.name = name


def _replace_uncalled(gm: GraphModuleWithAttr, fused: Sequence[Fused], context: FusionContext) -> None:
    """Put nn.Identity where a module was fused into another and nothing calls it any more."""
    paths = {called_module(node, context.modules) for node in gm.graph.nodes}
    called = {id(module) for path, module in context.modules.items() if path in paths}
    for member in dict.fromkeys(member for entry in fused for member in entry.members):
        module = context.modules.get(member)
        if module is not None and id(module) not in called:
            replace_module(gm, module, nn.Identity().train(module.training))

"""``convert_fx``: replace QAT modules by modules on integers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from bpu_fx_fusion import copy_structure, replace_module, shallow_copy

from .errors import ArgumentError, ConvertError
from .flow import is_wrapped
from .graph_module import ObservedGraphModule, QuantizedGraphModule
from .ops.functional import SCALELESS
from .ops.weighted.layer import WeightedQAT
from .preserve import frozen, is_preserved
from .qat_module import QATModule

__all__ = ["convert_fx"]


def convert_fx(
    graph_module: ObservedGraphModule,
    inplace: bool = False,
    convert_custom_config_dict: Mapping[str, Any] | None = None,
    _remove_qconfig: bool = True,
    fast_mode: bool = False,
) -> QuantizedGraphModule:
    """Return the model on integers: the same integers as the QAT model in VALIDATION state.

    Args:
        graph_module: calibrated or trained, made by ``prepare_qat_fx``.
        inplace: whether the given model may be used up; the result is the same.
        convert_custom_config_dict: ``{"preserved_attributes": [names]}``; all attributes are kept in any case.
        _remove_qconfig: accepted for compatibility; converted modules have no qconfig.
        fast_mode: accepted for compatibility; there is one form, exact and compilable.

    Raises:
        ArgumentError: not a prepared model, or an unknown key in the configuration.
        ConvertError: the model has never seen data; the modules are listed.
    """
    if not isinstance(graph_module, ObservedGraphModule):
        raise ArgumentError(
            f"expected the model that prepare_qat_fx returned, got {type(graph_module).__name__}; models of the eager "
            "prepare_qat are converted by convert"
        )
    unknown = sorted((convert_custom_config_dict or {}).keys() - {"preserved_attributes"})
    if unknown:
        raise ArgumentError(f"convert_custom_config_dict knows only 'preserved_attributes', got {unknown}")
    blind = unobserved(graph_module)
    if blind:
        shown = "\n".join(f"  {path}" for path in blind)
        raise ConvertError(
            f"{len(blind)} modules have never seen data, so their scales are unknown; run calibration batches through "
            f"the model, or load a calibrated state dict:\n{shown}"
        )
    source: Any = graph_module if inplace else copy_structure(graph_module)
    _own_leaves(source)
    quantized = QuantizedGraphModule(source, source.graph, type(graph_module).__name__)
    quantized.march = graph_module.march
    with torch.no_grad():
        for trained in outermost(quantized):
            becomes = frozen(trained) if is_preserved(trained) else trained.to_quantized()
            replace_module(quantized, trained, becomes.to(_device(trained)))
    for module in quantized.modules():
        if hasattr(module, "qconfig"):
            del module.qconfig
    _drop_unread_parameters(quantized)
    quantized.eval()
    return quantized


def _own_leaves(gm: nn.Module) -> None:
    """Put copies in the place of leaves that are shared with the float model, so that they can be edited."""
    for module in list(gm.modules()):
        if module is not gm and not module._modules and not isinstance(module, (QATModule, torch.jit.ScriptModule)):
            replace_module(gm, module, shallow_copy(module))


def outermost(model: nn.Module) -> list[QATModule]:
    """Return the QAT modules that are no parts of another, each once."""
    found: list[QATModule] = []
    parts: set[int] = set()
    for module in model.modules():  # what is around a module comes before it
        if isinstance(module, QATModule) and id(module) not in parts:
            found.append(module)
            parts.update(map(id, module.modules()))
    return found


def _drop_unread_parameters(gm: QuantizedGraphModule) -> None:
    """Drop float parameters that were fused into layers elsewhere; not where wrapped code might read them."""
    modules = dict(gm.named_modules(remove_duplicate=False))
    if any(is_wrapped(node, modules) for node in gm.graph.nodes):
        return
    called = {str(node.target) for node in gm.graph.nodes if node.op == "call_module"}
    read = {str(node.target) for node in gm.graph.nodes if node.op == "get_attr"}
    for path, module in modules.items():
        inside = any(path == each or path.startswith(f"{each}.") for each in called)
        for name in () if inside else [name for name, p in module._parameters.items() if p is not None]:
            if ".".join(filter(None, (path, name))) not in read:
                module._parameters[name] = None


def _device(module: nn.Module) -> torch.device:
    return next((t.device for t in (*module.parameters(), *module.buffers())), torch.device("cpu"))


def unobserved(gm: ObservedGraphModule) -> list[str]:
    """Return the paths of modules in the graph whose observers have seen nothing."""
    modules = dict(gm.named_modules(remove_duplicate=False))
    found: dict[str, None] = {}
    for node in gm.graph.nodes:
        path = str(node.target)
        if node.op == "call_method" and node.target not in SCALELESS and hasattr(node.args[0], "target"):
            path = str(node.args[0].target)
        module = modules.get(path)
        if not isinstance(module, QATModule) or node.op == "get_attr":
            continue
        if is_blind(module):
            found[path] = None
    return list(found)


def is_blind(module: QATModule) -> bool:
    """Whether an observer of a module has seen nothing; of a composite, whether all its parts have."""
    parts = [part for part in module.children() if isinstance(part, QATModule)]
    if parts:
        return all(map(is_blind, parts))
    fake_quants = [module.activation_post_process]
    if isinstance(module, WeightedQAT):
        fake_quants.append(module.weight_fake_quant)
    observers = [each.activation_post_process for each in fake_quants if each is not None]
    return any(bool(torch.isinf(observer.amplitude()).any()) for observer in observers)

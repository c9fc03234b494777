"""``prepare_qat_fx``: fuse a model, check all of it against the march, and put QAT modules in place."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from bpu_fx_fusion import GraphModuleWithAttr, fuse_fx, one_dimensional_to_two, replace_module, shallow_copy
from bpu_kernels.march import MarchRow, march_row
from bpu_qconfig import FakeQuantState, QConfigMapping, get_march, set_fake_quantize

from ..errors import ArgumentError, PrepareError
from ..flow import row_of
from ..graph_module import ObservedGraphModule, QuantizedGraphModule, expect_full_precision
from ..preserve import carry_mark
from ..qat_mode import QATMode, get_qat_mode
from ..qat_module import QATModule
from ..quantized_module import QuantizedModule
from .borders import separate_real_readers
from .constants import quantize_constants
from .hybrid import Chosen, plan_hybrid
from .plan import Swap, plan
from .resolve import QConfigResolver

__all__ = ["fused_model", "prepare_calibration_fx", "prepare_qat_fx"]


def prepare_qat_fx(
    model: nn.Module,
    qconfig_dict: Mapping[str, Any] | QConfigMapping | None = None,
    prepare_custom_config_dict: Mapping[str, Any] | None = None,
    optimize_graph: bool = False,
    hybrid: bool = False,
    hybrid_dict: Mapping[str, Any] | None = None,
    *,
    example_inputs: Any = None,
) -> ObservedGraphModule:
    """Return a model for calibration and quantization-aware training.

    The model is fused, everything between QuantStubs and DeQuantStubs is replaced by QAT modules, and all of it is held
    to the current march before anything is replaced. The float model keeps computing what it did; what is replaced is
    copied, modules that stay in float are shared.

    Args:
        model: a float model, or a graph module that ``fuse_fx`` returned.
        qconfig_dict: ``{"": global, "module_type": [(type, qconfig)], "module_name": [(path, qconfig)]}``, all
            optional, entries as pairs or as dicts; None: the modules' ``qconfig`` attributes alone.
        prepare_custom_config_dict: ``{"preserved_attributes": [names]}``; all attributes are kept in any case.
        optimize_graph: accepted for compatibility; it has a meaning on the BERNOULLI march only.
        hybrid: leave in float what has no integer form or no qconfig, between stubs that are inserted around it.
        hybrid_dict: ``{"module_name": [paths], "module_type": [types]}``, what else shall stay in float; functions are
            named by a module around them. Needs hybrid.
        example_inputs: a tensor or a tuple of what forward takes. With them, forward may choose branches and loop by
            sizes; all lengths but the batch are then fixed.

    Returns:
        The prepared model; its ``prepare_report`` tells what was quantized and what was not.

    Raises:
        PrepareError: something cannot be quantized; ``refusals`` lists every place with reason and way out.
        ArgumentError: hybrid_dict is not what it must be, or the model is prepared, converted or in half precision
            already.

    Warns:
        UserWarning: an entry of qconfig_dict matches nothing.
    """
    chosen = Chosen.from_dict(hybrid_dict)
    if hybrid_dict and not hybrid:
        raise ArgumentError("hybrid_dict says what stays in float in a hybrid model; give hybrid=True with it")
    _expect_float(model)
    row = march_row(get_march())
    gm = fused_model(model, prepare_custom_config_dict, example_inputs)
    resolver = QConfigResolver(gm, QConfigMapping.from_dict(qconfig_dict))
    resolver.warn_unused(model, stacklevel=2)
    if hybrid:
        gm, decided = plan_hybrid(gm, resolver.given, chosen.places(gm, model), row)
    else:
        decided = plan(gm, resolver, row)
    if decided.refusals:
        raise PrepareError(decided.refusals, row.march)
    prepared = ObservedGraphModule(gm, gm.graph, type(gm).__name__)
    prepared.march, prepared.prepare_report = row.march, decided.report
    _pass_inputs_by_position(prepared)
    _swap(prepared, decided.swaps, row)
    return prepared


def fused_model(
    model: nn.Module, prepare_custom_config_dict: Mapping[str, Any] | None = None, example_inputs: Any = None
) -> GraphModuleWithAttr:
    """Return the float model that is planned for: fused, in two dimensions, with stubs that its nature asks for."""
    folds = get_qat_mode() is QATMode.FuseBN
    gm = fuse_fx(model, prepare_custom_config_dict, absorb_batch_norm=folds, example_inputs=example_inputs)
    if one_dimensional_to_two(gm):
        gm = fuse_fx(gm, absorb_batch_norm=folds)
    separate_real_readers(gm)
    quantize_constants(gm)
    return gm


def prepare_calibration_fx(
    model: nn.Module,
    qconfig_dict: Mapping[str, Any] | QConfigMapping | None = None,
    prepare_custom_config_dict: Mapping[str, Any] | None = None,
    optimize_graph: bool = False,
    hybrid: bool = False,
    hybrid_dict: Mapping[str, Any] | None = None,
    *,
    example_inputs: Any = None,
) -> ObservedGraphModule:
    """Return what ``prepare_qat_fx`` returns, in evaluation mode and CALIBRATION state: run batches through it."""
    prepared = prepare_qat_fx(
        model,
        qconfig_dict,
        prepare_custom_config_dict,
        optimize_graph,
        hybrid=hybrid,
        hybrid_dict=hybrid_dict,
        example_inputs=example_inputs,
    )
    prepared.eval()
    set_fake_quantize(prepared, FakeQuantState.CALIBRATION)
    return prepared


def _expect_float(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"expected a float model, a torch.nn.Module, got {model!r}")
    if isinstance(model, (ObservedGraphModule, QuantizedGraphModule)):
        raise ArgumentError(f"expected a float model, got one that is {type(model).__mro__[1].__name__} already")
    for name, module in model.named_modules():
        if isinstance(module, (QATModule, QuantizedModule)):
            raise ArgumentError(
                f"expected a float model, but {name} is {type(module).__name__} already: calls of the FX flow and of "
                "the eager mode (prepare_qat, convert) are not mixed"
            )
    for name, parameter in model.named_parameters():
        expect_full_precision(parameter, f"the parameter {name} is")


def _pass_inputs_by_position(gm: GraphModuleWithAttr) -> None:
    """Give inputs by position, since QAT modules name them otherwise, and what may be left out by keyword.

    Given:  `conv = self.conv(input = x);  attend = self.attend(conv, conv, conv, None, False)`
    Result: `conv = self.conv(x);  attend = self.attend(conv, conv, conv, need_weights = False)`
    """
    modules = dict(gm.named_modules(remove_duplicate=False))
    for node in gm.graph.nodes:
        module = modules[str(node.target)] if node.op == "call_module" else None
        if module is None or row_of(module) is None:
            continue
        parameters = [*inspect.signature(type(module).forward).parameters.values()][1:]
        required = [each.name for each in parameters if each.default is each.empty]
        given = {each.name: value for each, value in zip(parameters, node.args, strict=False)} | node.kwargs
        node.args = tuple(given.pop(name) for name in required)
        node.kwargs = {name: value for name, value in given.items() if value is not None}
    gm.recompile()


def _swap(gm: ObservedGraphModule, swaps: tuple[Swap, ...], row: MarchRow) -> None:
    """Replace modules by QAT modules made of copies of them.

    One object that hangs at several places becomes one object again, and shared parameters stay shared: all copies are
    made with one memo.
    """
    modules = dict(gm.named_modules(remove_duplicate=False))
    made: dict[int, nn.Module] = {}
    memo: dict[int, Any] = {}
    for swap in swaps:
        source = modules[swap.path]
        if id(source) not in made:
            swapped = swap.row.qat(copy.deepcopy(source, memo), swap.qconfig, row, swap.path)
            carry_mark(source, swapped)
            made[id(source)] = swapped.to(_device(source, gm))
            replace_module(gm, source, made[id(source)])
    _share_copied_parameters(gm, memo)


def _device(module: nn.Module, gm: nn.Module) -> torch.device:
    tensors = (*module.parameters(), *module.buffers(), *gm.parameters())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def _share_copied_parameters(gm: ObservedGraphModule, memo: Mapping[int, Any]) -> None:
    """Put the copy of a parameter wherever else the original hangs, e.g. where a function took it as its weight."""
    for module in list(gm.modules()):
        copied = {name: memo[id(p)] for name, p in module._parameters.items() if p is not None and id(p) in memo}
        if not copied:
            continue
        holder = module
        if module is not gm and not module._modules:  # leaves are shared with the float model; containers are copies
            holder = shallow_copy(module)
            replace_module(gm, module, holder)
        holder._parameters.update(copied)

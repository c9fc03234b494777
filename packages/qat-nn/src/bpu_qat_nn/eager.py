"""Eager mode: prepare and convert a model module by module, its forward staying the user's Python code.

The modules are those of the FX flow, so the integers are the same. Without a graph the user does by hand what tracing
does: names what to fuse (eager_fusion.py), writes arithmetic with FloatFunctional, and functions as modules.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from bpu_fx_fusion import replace_module, separate_stateless_modules
from bpu_kernels.march import MarchRow, march_row
from bpu_qconfig import FakeQuantState, QConfig, as_qconfig, get_march, set_fake_quantize

from .convert import is_blind, outermost
from .eager_fusion import expect_no_hooks
from .errors import ArgumentError, ConvertError, PrepareError, Refusal
from .flow import row_of
from .graph_module import expect_full_precision
from .op import OpRow
from .ops.functional import QATFloatFunctional
from .ops.stubs import QATDeQuantStub
from .ops.weighted.layer import WeightedQAT
from .preparation.limits import limit_problems, output_dtype, qconfig_problems
from .preserve import carry_mark, frozen, is_preserved
from .qat_module import QATModule
from .quantized_module import QuantizedModule

__all__ = ["convert", "prepare_calibration", "prepare_qat"]

_NO_QCONFIG = QConfig(activation=None, weight=None)


def prepare_qat(
    model: nn.Module,
    mapping: Mapping[type[nn.Module], type[QATModule]] | None = None,
    inplace: bool = False,
    optimize_graph: bool = False,
    hybrid: bool = False,
    optimize_kwargs: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Return the model with QAT modules for all modules that have a qconfig, their own or that of a module around.

    Args:
        model: a float model with ``qconfig`` attributes, fused by ``fuse_modules`` as wanted.
        mapping: float type -> QAT type, for modules beyond those of the table OPS or other than there.
        inplace: change the model itself instead of a copy.
        optimize_graph: accepted for compatibility; it has a meaning on the BERNOULLI march only.
        hybrid: not available here, as it needs the graph; ``prepare_qat_fx`` has it.
        optimize_kwargs: accepted for compatibility, as optimize_graph.

    Raises:
        PrepareError: the march refuses modules; ``refusals`` lists them with reason and way out.
        ArgumentError: no module has a qconfig, or the model was traced, prepared or converted before.
    """
    if hybrid:
        raise ArgumentError("hybrid needs the graph of the model: prepare_qat_fx(model, qconfig_dict, hybrid=True)")
    _expect_float(model)
    row = march_row(get_march())
    prepared = model if inplace else copy.deepcopy(model)
    separate_stateless_modules(prepared)
    chosen = list(_chosen(prepared, "", None, dict(mapping or {})))
    if all(qconfig is _NO_QCONFIG for _, _, _, qconfig in chosen):
        raise ArgumentError("no module has a qconfig; set model.qconfig, and None where modules shall stay in float")
    refusals = [
        refusal for path, module, op, qconfig in chosen for refusal in _refusals(path, module, op, qconfig, row)
    ]
    if refusals:
        raise PrepareError(refusals, row.march)
    for path, module, op, qconfig in chosen:
        expect_no_hooks(module, path)
        device = next((t.device for t in (*module.parameters(), *prepared.parameters())), torch.device("cpu"))
        made = op.qat(module, qconfig, row, path)
        carry_mark(module, made)
        replace_module(prepared, module, made.to(device))
    return prepared


def _expect_float(model: nn.Module) -> None:
    if isinstance(model, GraphModule):
        raise ArgumentError(
            f"{type(model).__mro__[1].__name__} was traced; use prepare_qat_fx: calls of the FX flow and of the eager "
            "mode are not mixed"
        )
    for name, module in model.named_modules():
        if isinstance(module, (QATModule, QuantizedModule)):
            raise ArgumentError(
                f"expected a float model, but {name} is {type(module).__name__} already; "
                "set_fake_quantize(model, FakeQuantState.QAT) goes on from calibration to training"
            )
    for name, parameter in model.named_parameters():
        expect_full_precision(parameter, f"the parameter {name} is")


_Found = tuple[str, nn.Module, OpRow, QConfig]


def _chosen(
    module: nn.Module, path: str, around: QConfig | None, mapping: dict[type[nn.Module], type[QATModule]]
) -> Iterator[_Found]:
    """Yield what will be replaced, each object once: path, module, row and qconfig."""
    seen: set[int] = set()

    def visit(module: nn.Module, path: str, around: QConfig | None) -> Iterator[_Found]:
        qconfig = as_qconfig(module.qconfig) if hasattr(module, "qconfig") else around
        op = _row(module, mapping)
        if op is None:
            for name, child in module.named_children():
                yield from visit(child, f"{path}.{name}" if path else name, qconfig)
        elif id(module) not in seen and (qconfig is not None or op.qat is QATDeQuantStub):
            seen.add(id(module))
            yield path, module, op, _NO_QCONFIG if op.qat is QATDeQuantStub or qconfig is None else qconfig

    return visit(module, path, around)


def _row(module: nn.Module, mapping: Mapping[type[nn.Module], type[QATModule]]) -> OpRow | None:
    qat = mapping.get(type(module))
    return row_of(module) if qat is None else OpRow(name=qat.__name__, floats=(type(module),), qat=qat, kernels=())


def _refusals(path: str, module: nn.Module, op: OpRow, qconfig: QConfig, row: MarchRow) -> Iterator[Refusal]:
    """Yield what stands against a module; the types of its inputs are not known."""
    what, weighted = type(module).__name__, issubclass(op.qat, WeightedQAT)
    problems = list(qconfig_problems(op, qconfig, row))
    if op.qat.own_scale and qconfig.activation is None and not weighted:
        reason = "its qconfig has no activation part, which only layers with weights can do without"
        problems.append((reason, "Give it a qconfig that quantizes activations"))
    if weighted and qconfig.weight is None:
        problems.append(("its qconfig has no weight part", "Give it a qconfig that quantizes weights"))
    for reason, way_out in problems or limit_problems(op, module, row, output_dtype(qconfig), [], None, {}):
        yield Refusal(path=path, what=what, reason=reason, way_out=way_out)


def prepare_calibration(model: nn.Module, inplace: bool = False) -> nn.Module:
    """Return the model prepared, in evaluation mode and CALIBRATION state: run batches through it.

    ``set_fake_quantize(model, FakeQuantState.QAT)`` and ``train()`` go on from there, or ``convert``. Arguments and
    errors are those of ``prepare_qat``.
    """
    prepared = prepare_qat(model, inplace=inplace).eval()
    set_fake_quantize(prepared, FakeQuantState.CALIBRATION)
    return prepared


def convert(
    module: nn.Module,
    mapping: Mapping[type[QATModule], Any] | None = None,
    inplace: bool = False,
    remove_qconfig: bool = True,
    fast_mode: bool = False,
) -> nn.Module:
    """Return the model on integers: the same integers as the QAT model in VALIDATION state.

    Args:
        module: calibrated or trained, made by ``prepare_qat`` or ``prepare_calibration``.
        mapping: QAT type -> what makes the converted module of one, other than the type's own.
        inplace: change the model itself instead of a copy.
        remove_qconfig: drop the ``qconfig`` attributes.
        fast_mode: accepted for compatibility; there is one form, exact and compilable.

    Raises:
        ArgumentError: not a model of ``prepare_qat``.
        ConvertError: modules have never seen data; they are listed.
    """
    if isinstance(module, GraphModule):
        raise ArgumentError(f"{type(module).__mro__[1].__name__} was traced; use convert_fx")
    if not any(isinstance(each, QATModule) for each in module.modules()):
        raise ArgumentError("expected the model that prepare_qat returned, got one without QAT modules")
    blind = [name for name, each in module.named_modules() if _never_ran(each)]
    if blind:
        shown = "\n".join(f"  {path}" for path in blind)
        raise ConvertError(
            f"{len(blind)} modules have never seen data, so their scales are unknown; run calibration batches through "
            f"the model, or set the qconfig of modules that it does not use to None:\n{shown}"
        )
    converted = module if inplace else copy.deepcopy(module)
    with torch.no_grad():
        for trained in outermost(converted):
            device = next((t.device for t in (*trained.parameters(), *trained.buffers())), torch.device("cpu"))
            becomes = (
                frozen if is_preserved(trained) else (mapping or {}).get(type(trained), type(trained).to_quantized)
            )
            replace_module(converted, trained, becomes(trained).to(device))
    for each in converted.modules() if remove_qconfig else ():
        if "qconfig" in vars(each):
            del each.qconfig
    return converted.eval()


def _never_ran(module: nn.Module) -> bool:
    # A FloatFunctional that only multiplies by numbers observes nothing.
    return isinstance(module, QATModule) and not isinstance(module, QATFloatFunctional) and is_blind(module)

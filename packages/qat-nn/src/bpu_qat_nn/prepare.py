"""``prepare_qat_fx``: fuse a model, check all of it against the march, and put QAT modules in place."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.fx import Node

from bpu_fx_fusion import FusedModule, GraphModuleWithAttr, fuse_fx, replace_module
from bpu_kernels.dtypes import QuantDType, qint8, qint32
from bpu_kernels.march import MarchRow, march_row
from bpu_qconfig import QConfig, QConfigMapping, as_qconfig, check_qconfig_for_march, get_march

from .errors import BpuQatError, PrepareError, Refusal
from .flow import Kind, call_arguments, called_module, kinds_of, moves, tensor_inputs
from .graph_module import ObservedGraphModule, PrepareReport
from .op import OpRow
from .ops import OPS
from .ops.functional import QATFloatFunctional
from .ops.stubs import QATDeQuantStub, QATQuantStub
from .ops.weighted import WeightedQAT
from .qat_mode import QATMode, get_qat_mode
from .qtensor import MOVING_MODULES

__all__ = ["prepare_qat_fx"]

_NO_QCONFIG = QConfig(activation=None, weight=None)
"""For operators that neither observe nor have weights."""


def prepare_qat_fx(
    model: nn.Module,
    qconfig_dict: Mapping[str, Any] | QConfigMapping | None = None,
    prepare_custom_config_dict: Mapping[str, Any] | None = None,
    optimize_graph: bool = False,
    hybrid: bool = False,
    hybrid_dict: Mapping[str, Any] | None = None,
) -> ObservedGraphModule:
    """Return a model for calibration and quantization-aware training.

    The model is fused, everything between QuantStubs and DeQuantStubs is replaced by QAT modules, and all of it is held
    to the current march before anything is replaced. The float model keeps computing what it did; parameters are
    copied, modules that stay in float are shared.

    Args:
        model: a float model, or a graph module that ``fuse_fx`` returned.
        qconfig_dict: ``{"": global, "module_type": [(type, qconfig)], "module_name": [(path, qconfig)]}``, all
            optional, entries as pairs or as dicts; None: the modules' ``qconfig`` attributes alone.
        prepare_custom_config_dict: ``{"preserved_attributes": [names]}``; all attributes are kept in any case.
        optimize_graph: accepted for compatibility; it has a meaning on the BERNOULLI march only.
        hybrid: not supported; leave operators in float by a DeQuantStub before and a QuantStub behind them.
        hybrid_dict: not supported, as hybrid.

    Raises:
        PrepareError: something cannot be quantized; ``refusals`` lists every place with reason and way out.
        BpuQatError: hybrid was asked for.
    """
    if hybrid or hybrid_dict:
        raise BpuQatError(
            "hybrid models are not supported: put a DeQuantStub before the operators that shall stay in float and a "
            "QuantStub behind them, and set their qconfig to None"
        )
    row = march_row(get_march())
    mapping = QConfigMapping.from_dict(qconfig_dict)
    for entry in mapping.unused(model):
        warnings.warn(str(entry), stacklevel=2)
    gm = fuse_fx(model, prepare_custom_config_dict, absorb_batch_norm=get_qat_mode() is QATMode.FuseBN)
    plan = _Planner(gm, mapping, row).plan()
    if plan.refusals:
        raise PrepareError(plan.refusals, row.march)
    prepared = ObservedGraphModule(gm, gm.graph, type(gm).__name__)
    prepared.march, prepared.prepare_report = row.march, PrepareReport(plan.left)
    _swap(prepared, plan, row)
    return prepared


@dataclass(frozen=True, kw_only=True)
class Swap:
    """A float module that becomes a QAT module."""

    path: str
    row: OpRow
    qconfig: QConfig


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be replaced, what cannot be, and what stays in float."""

    swaps: tuple[Swap, ...]
    refusals: tuple[Refusal, ...]
    left: tuple[str, ...]


class _Planner:
    """Walks the graph once and decides about every node."""

    def __init__(self, gm: GraphModuleWithAttr, mapping: QConfigMapping, row: MarchRow) -> None:
        self.gm, self.mapping, self.row = gm, mapping, row
        self.modules = dict(gm.named_modules(remove_duplicate=False))
        self.kinds = kinds_of(gm)
        self.swaps: dict[str, Swap] = {}
        self.refusals: dict[tuple[str, str], Refusal] = {}
        self.left: dict[str, None] = {}

    def plan(self) -> Plan:
        """Decide."""
        for node in self.gm.graph.nodes:
            called = called_module(node, self.modules)
            if called is not None:
                self._decide_module(node, *called)
            elif node.op in ("call_function", "call_method"):
                self._decide_function(node)
        self._decide_unseen()
        if not any(swap.row.qat is QATQuantStub for swap in self.swaps.values()):
            way_out = "Put a QuantStub between each float input and the first layer"
            self._refuse("(model)", type(self.gm).__name__, "it has no QuantStub, so nothing is quantized", way_out)
        return Plan(swaps=tuple(self.swaps.values()), refusals=tuple(self.refusals.values()), left=tuple(self.left))

    def _refuse(self, path: str, what: str, reason: str, way_out: str) -> None:
        self.refusals.setdefault((path, reason), Refusal(path=path, what=what, reason=reason, way_out=way_out))

    def _decide_module(self, node: Node, path: str, module: nn.Module) -> None:
        what, row = type(module).__name__, OPS.get(type(module))
        inputs = [self.kinds[source] for source in tensor_inputs(node, self.kinds)]
        qconfig = self.qconfig_of(path, module)
        if isinstance(module, MOVING_MODULES):
            return
        if row is not None and row.qat in (QATQuantStub, QATDeQuantStub):
            self._decide_stub(path, module, row, qconfig)
        elif Kind.QUANTIZED not in inputs and Kind.OPAQUE not in inputs:
            self._decide_float(path, what, row, qconfig)
        elif Kind.FLOAT in inputs:
            self._refuse_mixed(node, path, what)
        elif row is None:
            self._refuse(
                path,
                what,
                "it has no integer form",
                "Put a DeQuantStub before it and, if quantized layers follow, a QuantStub behind it, or write it in "
                "supported operators (docs/operators.md)",
            )
        elif qconfig is None and row.qat.own_scale and Kind.QUANTIZED in inputs:
            self._refuse(
                path, what, "its qconfig is None or missing, but its input is quantized", "Give it a qconfig, or put a "
                "DeQuantStub before it"
            )  # fmt: skip
        elif qconfig is not None or not row.qat.own_scale:
            self._accept(node, path, module, row, qconfig or _NO_QCONFIG)

    def _decide_stub(self, path: str, module: nn.Module, row: OpRow, qconfig: QConfig | None) -> None:
        if row.qat is QATDeQuantStub:
            self.swaps[path] = Swap(path=path, row=row, qconfig=qconfig or _NO_QCONFIG)
            return
        if qconfig is None:
            self._refuse(path, type(module).__name__, "its qconfig is None or missing", "Give the stub a qconfig")
        elif qconfig.activation is None:
            way_out = "Give the stub a qconfig that quantizes activations"
            self._refuse(path, type(module).__name__, "its qconfig has no activation part", way_out)
        else:
            self._check_limits(path, module, row, qconfig, {})
            self.swaps[path] = Swap(path=path, row=row, qconfig=qconfig)

    def _decide_float(self, path: str, what: str, row: OpRow | None, qconfig: QConfig | None) -> None:
        """An operator on real values stays as it is; with weights and a qconfig that is hardly what was meant."""
        if row is None or qconfig is None:
            return
        if issubclass(row.qat, WeightedQAT):
            self._refuse(
                path,
                what,
                "it has a qconfig, but its input is not quantized",
                "Put a QuantStub before it, or set its qconfig to None to leave it in float",
            )
        else:
            self.left[f"{path} ({what}) stays in float: its input is not quantized"] = None

    def _refuse_mixed(self, node: Node, path: str, what: str) -> None:
        floats = [str(s) for s in tensor_inputs(node, self.kinds) if self.kinds[s] is Kind.FLOAT]
        reason = f"its operand {', '.join(floats)} is a real tensor, the other is quantized"
        self._refuse(path, what, reason, "Pass the real operand through a QuantStub of its own")

    def _accept(self, node: Node, path: str, module: nn.Module, row: OpRow, qconfig: QConfig) -> None:
        if row.qat.own_scale and qconfig.activation is None and not issubclass(row.qat, WeightedQAT):
            reason = "its qconfig has no activation part, which only layers with weights can do without"
            self._refuse(path, type(module).__name__, reason, "Give it a qconfig that quantizes activations")
            return
        self._check_limits(path, module, row, qconfig, dict(call_arguments(node)), str(node.target))
        self.swaps[path] = Swap(path=path, row=row, qconfig=qconfig)

    def _check_limits(
        self, path: str, module: nn.Module, row: OpRow, qconfig: QConfig, given: dict[str, Any], method: str = ""
    ) -> None:
        what, dtype = type(module).__name__, output_dtype(qconfig)
        for problem in check_qconfig_for_march(qconfig, self.row.march):
            self._refuse(path, what, f"qconfig: {problem}", "")
        if issubclass(row.qat, QATFloatFunctional):
            found = row.qat.method_limits(method, given, self.row, dtype)
        else:
            found = row.qat.limits(module, self.row, dtype)
        for problem_text in found:
            boards = f"{self.row.march} ({self.row.boards})"
            way_out = "Change the layer, or leave it in float between a DeQuantStub and a QuantStub"
            self._refuse(path, what, f"{boards} does not take {problem_text}", way_out)

    def _decide_function(self, node: Node) -> None:
        if Kind.QUANTIZED not in [self.kinds[source] for source in tensor_inputs(node, self.kinds)]:
            return
        if self.kinds[node] in (Kind.OPAQUE, Kind.OTHER) or moves(node):
            if "transpose" in self.row.refused_kernels and node.target in ("permute", "transpose"):
                pass  # layouts that need no data movement are possible; lowering knows the shapes and decides
            return
        name = getattr(node.target, "__name__", str(node.target))
        if name in ("centered_yuv2rgb", "centered_yuv2bgr"):
            return
        self._refuse(
            node.name,
            name,
            "this function has no integer form",
            "Use a supported operator or module (docs/operators.md), put a DeQuantStub before it, or keep it whole "
            "with wrap if it works on quantized tensors",
        )

    def _decide_unseen(self) -> None:
        """Modules that only wrapped code calls are replaced if a qconfig was given to them, not inherited by all."""
        seen = {called[0] for node in self.gm.graph.nodes if (called := called_module(node, self.modules))}
        for path, module in self.gm.named_modules():
            row = OPS.get(type(module))
            inside = any(isinstance(parent, FusedModule) for _, parent in self._parents(path))
            if row is None or path in seen or inside or isinstance(module, nn.Identity):
                continue
            explicit = any(
                hasattr(parent, "qconfig") or name in self.mapping.module_names
                for name, parent in [*[*self._parents(path)][1:], (path, module)]
            )
            qconfig = self.qconfig_of(path, module) if explicit else None
            if qconfig is not None:
                self._check_limits(path, module, row, qconfig, {})
                self.swaps[path] = Swap(path=path, row=row, qconfig=qconfig)

    def _parents(self, path: str) -> Iterator[tuple[str, nn.Module]]:
        """Yield (path, module) of the modules around one, from the root."""
        yield "", self.gm
        parts = path.split(".")
        for length in range(1, len(parts)):
            prefix = ".".join(parts[:length])
            if prefix in self.modules:
                yield prefix, self.modules[prefix]

    def qconfig_of(self, path: str, module: nn.Module) -> QConfig | None:
        """Return the qconfig of a module of the fused model, by the rules of QConfigMapping.

        A fused module asks for its layer with weights first; a module that stands for a function, for the module whose
        forward called the function.
        """
        members = self.gm.fused_modules.get(path, (path,))
        if hasattr(module, "qconfig"):
            return as_qconfig(module.qconfig)
        for member in members:
            if member in self.mapping.module_names:
                return self.mapping.module_names[member]
        owner = self.gm.generated_modules.get(members[0])
        if owner is not None:
            chain = [*self._parents(owner), (owner, self.modules[owner])] if owner else [("", self.gm)]
            return self.mapping.resolve(members[0], chain)
        layer = getattr(module, "conv", module) if isinstance(module, FusedModule) else module
        return self.mapping.resolve(members[0], [*self._parents(members[0]), (members[0], layer)])


def output_dtype(qconfig: QConfig) -> QuantDType:
    """Return the type of an operator's output: qint32 where nothing quantizes it."""
    if qconfig is _NO_QCONFIG:
        return qint8
    return qint32 if qconfig.activation is None else qconfig.activation().dtype


def _swap(gm: ObservedGraphModule, plan: Plan, row: MarchRow) -> None:
    """Replace modules; one object hanging at several places becomes one object again, and shared parameters stay so."""
    modules = dict(gm.named_modules(remove_duplicate=False))
    made: dict[int, nn.Module] = {}
    tied: dict[int, nn.Parameter] = {}
    for swap in plan.swaps:
        source = modules[swap.path]
        if id(source) in made:
            continue
        swapped = swap.row.qat(source, swap.qconfig, row, swap.path)
        tensor = next((t for t in (*source.parameters(), *source.buffers(), *gm.parameters())), torch.empty(0))
        swapped.to(tensor.device)
        layer = getattr(source, "conv", source)
        for name, parameter in list(swapped.named_parameters(recurse=False)):
            original = getattr(layer, name, None)
            if isinstance(original, nn.Parameter):
                setattr(swapped, name, tied.setdefault(id(original), parameter))
        made[id(source)] = swapped
        replace_module(gm, source, swapped)

"""Plan: what ``prepare_qat_fx`` will replace, what cannot be quantized and why, and what stays in float."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.fx import Node

from bpu_fx_fusion import FusedModule, GraphModuleWithAttr
from bpu_kernels.dtypes import QuantDType, qint8
from bpu_kernels.march import MarchRow
from bpu_qconfig import QConfig

from ..errors import Refusal
from ..flow import Kind, call_arguments, called_module, kinds_of, moves, place_of, row_of, tensor_inputs
from ..moves import MOVING_MODULES
from ..op import OpRow
from ..ops.functional import SCALELESS
from ..ops.stubs import QATDeQuantStub, QATQuantStub
from ..ops.weighted.layer import WeightedQAT
from .constants import constants_of
from .limits import limit_problems, output_dtype, qconfig_problems
from .report import LeftInFloat, PrepareReport, Quantized, SharedScale
from .resolve import QConfigResolver

__all__ = ["Plan", "Swap", "plan"]

_NO_QCONFIG = QConfig(activation=None, weight=None)
"""For operators that neither observe nor have weights."""


@dataclass(frozen=True, kw_only=True)
class Swap:
    """A float module that becomes a QAT module."""

    path: str
    row: OpRow
    qconfig: QConfig


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be replaced, what cannot be, and what is to be told."""

    swaps: tuple[Swap, ...]
    refusals: tuple[Refusal, ...]
    report: PrepareReport


def plan(
    gm: GraphModuleWithAttr, resolver: QConfigResolver, row: MarchRow, floats: Mapping[str, str] | None = None
) -> Plan:
    """Decide about every node of a fused model; nothing is changed.

    Args:
        gm: the fused model.
        resolver: knows its qconfigs.
        row: the march.
        floats: places that stay in float, and why.
    """
    return _Planner(gm, resolver, row, floats or {}).plan()


class _Planner:
    """Walks the graph once, in order of execution, so the types of a node's inputs are known when it is reached."""

    def __init__(
        self, gm: GraphModuleWithAttr, resolver: QConfigResolver, row: MarchRow, floats: Mapping[str, str]
    ) -> None:
        self.gm, self.resolver, self.row, self.floats = gm, resolver, row, floats
        self.modules = dict(gm.named_modules(remove_duplicate=False))
        self.kinds = kinds_of(gm, floats)
        self.constants = constants_of(gm, self.kinds)
        self.types: dict[Node, QuantDType] = {}
        """Type of every quantized value; those that only running tells are missing."""
        self.swaps: dict[str, Swap] = {}
        self.refusals: dict[tuple[str, str], Refusal] = {}
        self.quantized: dict[str, Quantized] = {}
        self.left: dict[str, LeftInFloat] = {}
        self.calls: Counter[str] = Counter()
        """How often a module that is quantized is called."""

    def plan(self) -> Plan:
        for node in self.gm.graph.nodes:
            called, place = called_module(node, self.modules), place_of(node, self.modules)
            if place in self.floats:
                what = (
                    getattr(node.target, "__name__", str(node.target)) if called is None else type(called[1]).__name__
                )
                self.left[place] = LeftInFloat(path=place, what=what, reason=self.floats[place])
            elif called is not None:
                self._decide_module(node, *called)
            elif node.op in ("call_function", "call_method"):
                self._decide_function(node)
        self._decide_unseen()
        self._refuse_contradictions()
        if not any(self._is_stub(node) for node in self.gm.graph.nodes):
            way_out = "Put a QuantStub between each float input and the first layer"
            self._refuse("(model)", type(self.gm).__name__, "it has no QuantStub, so nothing is quantized", way_out)
        report = PrepareReport(
            quantized=tuple(self.quantized.values()), left=tuple(self.left.values()), shared=tuple(self._shared())
        )
        return Plan(swaps=tuple(self.swaps.values()), refusals=tuple(self.refusals.values()), report=report)

    def _shared(self) -> Iterator[SharedScale]:
        for path, calls in self.calls.items():
            module, has_scale = self.modules[path], self.swaps[path].row.qat.own_scale
            if calls > 1 and has_scale and not list(module.parameters()):
                yield SharedScale(path=path, what=type(module).__name__, calls=calls)

    def _is_stub(self, node: Node) -> bool:
        called = called_module(node, self.modules)
        row = None if called is None else row_of(called[1])
        return row is not None and row.qat is QATQuantStub

    def _refuse(self, path: str, what: str, reason: str, way_out: str, floatable: bool = False) -> None:
        refusal = Refusal(path=path, what=what, reason=reason, way_out=way_out, floatable=floatable)
        self.refusals.setdefault((path, reason), refusal)

    def _input_types(self, node: Node) -> list[QuantDType | None]:
        return [self.types.get(source) for source in tensor_inputs(node, self.kinds)]

    # Nodes

    def _decide_module(self, node: Node, path: str, module: nn.Module) -> None:
        what, row, qconfig = type(module).__name__, row_of(module), self.resolver.qconfig_of(path, module)
        kinds = [self.kinds[source] for source in tensor_inputs(node, self.kinds)]
        if isinstance(module, MOVING_MODULES):
            self._pass_type(node)
        elif row is not None and row.qat is QATDeQuantStub:
            self.swaps[path] = Swap(path=path, row=row, qconfig=_NO_QCONFIG)
        elif row is not None and row.qat is QATQuantStub:
            self._decide_stub(node, path, module, row, qconfig)
        elif Kind.QUANTIZED not in kinds and (Kind.FLOAT in kinds or Kind.OPAQUE not in kinds):
            self._decide_float(node, path, what, row, qconfig)
        elif Kind.FLOAT in kinds:
            self._refuse_mixed(node, path, what)
        elif row is None:
            way_out = (
                "Put a DeQuantStub before it and, if quantized layers follow, a QuantStub behind it, or write it in "
                "supported operators (docs/operators.md)"
            )
            self._refuse(path, what, "it has no integer form", way_out, floatable=True)
        elif qconfig is None and row.qat.own_scale and Kind.QUANTIZED in kinds:
            way_out = "Give it a qconfig, or put a DeQuantStub before it"
            reason = "its qconfig is None or missing, but its input is quantized"
            self._refuse(path, what, reason, way_out, floatable=True)
        elif qconfig is not None or not row.qat.own_scale:
            self._accept(node, path, module, row, qconfig or _NO_QCONFIG)

    def _decide_stub(self, node: Node, path: str, module: nn.Module, row: OpRow, qconfig: QConfig | None) -> None:
        what = type(module).__name__
        if qconfig is None:
            self._refuse(path, what, "its qconfig is None or missing", "Give the stub a qconfig")
        elif qconfig.activation is None:
            way_out = "Give the stub a qconfig that quantizes activations"
            self._refuse(path, what, "its qconfig has no activation part", way_out)
        else:
            passed = [self.types.get(s) for s in tensor_inputs(node, self.kinds) if self.kinds[s] is Kind.QUANTIZED]
            self._take(node, path, module, row, qconfig, passed)

    def _decide_float(self, node: Node, path: str, what: str, row: OpRow | None, qconfig: QConfig | None) -> None:
        """An operator on real values stays as it is; with weights and a qconfig that is hardly what was meant."""
        if row is None or qconfig is None:
            return
        if node in self.constants:
            self.left[path] = LeftInFloat(path=path, what=what, reason="it computes a constant")
            return
        if issubclass(row.qat, WeightedQAT):
            way_out = "Put a QuantStub before it, or set its qconfig to None to leave it in float"
            self._refuse(path, what, "it has a qconfig, but its input is not quantized", way_out)
        else:
            self.left[path] = LeftInFloat(path=path, what=what, reason="its input is not quantized")

    def _refuse_mixed(self, node: Node, path: str, what: str) -> None:
        floats = [str(s) for s in tensor_inputs(node, self.kinds) if self.kinds[s] is Kind.FLOAT]
        reason = f"its operand {', '.join(floats)} is a real tensor, the other is quantized"
        self._refuse(path, what, reason, "Pass the real operand through a QuantStub of its own")

    def _accept(self, node: Node, path: str, module: nn.Module, row: OpRow, qconfig: QConfig) -> None:
        what, weighted = type(module).__name__, issubclass(row.qat, WeightedQAT)
        given = dict(call_arguments(node, module))
        extra = sorted(given.keys() - row.qat.options) if node.op == "call_module" else []
        if row.qat.own_scale and qconfig.activation is None and not weighted:
            reason = "its qconfig has no activation part, which only layers with weights can do without"
            self._refuse(path, what, reason, "Give it a qconfig that quantizes activations")
        elif weighted and qconfig.weight is None:
            self._refuse(path, what, "its qconfig has no weight part", "Give it a qconfig that quantizes weights")
        elif extra:
            reason = f"its call gives {', '.join(extra)}, which the integer form does not take"
            way_out = "Give it to the constructor as a number, or leave the module in float"
            self._refuse(path, what, reason, way_out, floatable=True)
        else:
            self._take(node, path, module, row, qconfig, self._input_types(node), given)

    def _take(
        self,
        node: Node,
        path: str,
        module: nn.Module,
        row: OpRow,
        qconfig: QConfig,
        inputs: list[QuantDType | None],
        given: dict[str, Any] | None = None,
    ) -> None:
        """Note the swap and the type of the output; refuse what the march cannot do."""
        method = str(node.target) if node.op == "call_method" else "forward"
        keeps = not row.qat.own_scale or method in SCALELESS or (row.qat is QATQuantStub and bool(inputs))
        dtype = (inputs[0] if inputs else None) if keeps else output_dtype(qconfig)
        swap = Swap(path=path, row=row, qconfig=qconfig)
        self.calls[path] += 1
        self._refuse_beyond_limits(swap, module, dtype or qint8, inputs, method, given or {})
        self._note_swap(swap, type(module).__name__)
        if dtype is not None:
            self.types[node] = dtype
        shown = tuple(inputs) if inputs else (None,)
        self.quantized[path] = Quantized(path=path, what=type(module).__name__, inputs=shown, output=dtype)

    def _note_swap(self, swap: Swap, what: str) -> None:
        """Note a swap; refuse one for a module that has another qconfig under another of its paths."""
        module = self.modules[swap.path]
        for path, other in self.modules.items():
            if other is not module or path == swap.path or not self.resolver.given_explicitly(path, module):
                continue
            if self.resolver.qconfig_of(path, module) != swap.qconfig:
                reason = f"it is the same module as {swap.path}, but their qconfigs differ"
                self._refuse(path, what, reason, "Give both the same qconfig, or make two modules")
        self.swaps[swap.path] = swap

    def _refuse_beyond_limits(
        self,
        swap: Swap,
        module: nn.Module,
        dtype: QuantDType,
        inputs: list[QuantDType | None],
        method: str | None,
        given: dict[str, Any],
    ) -> None:
        what, problems = type(module).__name__, list(qconfig_problems(swap.row, swap.qconfig, self.row))
        for reason, way_out in problems:
            self._refuse(swap.path, what, reason, way_out)
        if not problems:
            floatable = method is not None and swap.row.qat is not QATQuantStub
            for reason, way_out in limit_problems(swap.row, module, self.row, dtype, inputs, method, given):
                self._refuse(swap.path, what, reason, way_out, floatable)

    def _decide_function(self, node: Node) -> None:
        if Kind.QUANTIZED not in [self.kinds[source] for source in tensor_inputs(node, self.kinds)]:
            return
        name = getattr(node.target, "__name__", str(node.target))
        if node.target is getattr and node.args[1] == "dtype" and node.users:
            reason = "the type of a quantized tensor, such as qint8, is none that torch's functions take"
            way_out = "Leave the type out or name it (torch.float32), or pass example_inputs, with which it is known"
            self._refuse(node.name, "getattr 'dtype'", reason, way_out)
        if self.kinds[node] in (Kind.OPAQUE, Kind.OTHER):
            return
        indices = tensor_inputs(node, self.kinds)[1:] if name in ("getitem", "__getitem__", "index_select") else []
        if any(self.kinds[source] is Kind.QUANTIZED for source in indices):
            reason = "it picks elements by the values of a quantized tensor"
            way_out = "Write torch.where or masked_fill for a mask, torch.gather for places"
            self._refuse(node.name, name, reason, way_out, floatable=True)
        elif moves(node):
            self._pass_type(node)
        elif name in ("centered_yuv2rgb", "centered_yuv2bgr"):
            self.types[node] = qint8
        else:
            shown = f"getattr {node.args[1]!r}" if node.target is getattr else name
            way_out = (
                "Use a supported operator or module (docs/operators.md), put a DeQuantStub before it, or keep it whole "
                "with wrap if it works on quantized tensors"
            )
            kept = next((k for k in self.gm.fusion_report.kept_functions if k.node == node.name), None)
            reason = (
                "this function has no integer form" if kept is None else f"this call has no integer form: {kept.reason}"
            )
            self._refuse(node.name, shown, reason, way_out, floatable=True)

    def _pass_type(self, node: Node) -> None:
        known = next(iter(self._input_types(node)), None)
        if known is not None:
            self.types[node] = known

    # The model as a whole

    def _decide_unseen(self) -> None:
        """Modules that only wrapped code calls are replaced if a qconfig was given to them, not inherited by all."""
        seen = {called[0] for node in self.gm.graph.nodes if (called := called_module(node, self.modules))}
        for path, module in self._unseen(seen):
            row = row_of(module)
            qconfig = self.resolver.qconfig_of(path, module) if self.resolver.given_explicitly(path, module) else None
            if row is not None and qconfig is not None:
                dtype = output_dtype(qconfig)
                swap = Swap(path=path, row=row, qconfig=qconfig)
                self._refuse_beyond_limits(swap, module, dtype, [], None, {})
                self._note_swap(swap, type(module).__name__)
                self.quantized[path] = Quantized(path=path, what=type(module).__name__, inputs=(None,), output=dtype)

    def _unseen(self, seen: set[str]) -> Iterator[tuple[str, nn.Module]]:
        for path, module in self.gm.named_modules():
            inside = any(isinstance(parent, FusedModule) for _, parent in self.resolver.parents(path))
            if path not in seen and not inside and not isinstance(module, nn.Identity):
                yield path, module

    def _refuse_contradictions(self) -> None:
        """A module is replaced wherever it is called, so it cannot be called on real tensors as well."""
        replaced = {id(self.modules[path]) for path in self.swaps}
        for path, left in list(self.left.items()):
            if id(self.modules.get(path)) in replaced:
                reason = "it is called on quantized tensors and on real ones"
                self._refuse(path, left.what, reason, "Make two modules of it")

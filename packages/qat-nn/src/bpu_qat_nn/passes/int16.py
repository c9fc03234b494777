"""Which activations to raise to 16 bits: those whose 8-bit rounding harms the output most for the work it takes.

Sensitivity is measured: one activation after the other is rounded to 8 bits while all else stays real, and the error of
the model's output tells. Work is counted in multiply-accumulates (elements, for operators without weights): an operator
that reads 16 bits takes about twice the time of one that reads 8.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Interpreter, Node
from torch.utils._pytree import tree_leaves

from bpu_fx_fusion import GraphModuleWithAttr
from bpu_kernels.dtypes import qint16
from bpu_kernels.march import MarchRow, march_row
from bpu_qconfig import (
    FakeQuantState,
    FixedScaleObserver,
    Partial,
    QConfig,
    QConfigMapping,
    get_march,
    set_fake_quantize,
)

from ..errors import ArgumentError
from ..flow import place_of
from ..graph_module import ObservedGraphModule
from ..ops.weighted.layer import WeightedQAT
from ..preparation.plan import Plan, plan
from ..preparation.prepare import fused_model, prepare_qat_fx
from ..preparation.resolve import QConfigResolver
from ..qat_module import QATModule
from ..qtensor import QTensor
from .forward import evaluated, run_batches

__all__ = ["Int16Choice", "Raised", "choose_int16"]


@dataclass(frozen=True, kw_only=True)
class Raised:
    """An activation and what was found about it."""

    path: str
    error: float
    """Mean square error of the output that rounding it to 8 bits makes, relative to the output's mean square."""
    cost: float
    """Work that 16 bits here add to what was chosen before, as a share of the whole model's."""
    reason: str = ""
    """Why it stays at 8 bits; empty if it was raised."""


@dataclass(frozen=True, kw_only=True)
class Int16Choice:
    """Result of ``choose_int16``; prints as a table."""

    raised: tuple[Raised, ...]
    """In the order in which they were chosen."""
    left: tuple[Raised, ...]
    """The others, the most harmful first."""
    qconfig_dict: Mapping[str, Any] = field(repr=False)
    """For ``prepare_qat_fx``: what was given, with an entry for each raised activation."""

    @property
    def cost(self) -> float:
        """Work added, as a share of the whole model's."""
        return sum(each.cost for each in self.raised)

    def __str__(self) -> str:
        lines = [f"{len(self.raised)} activations at 16 bits, work +{self.cost:.1%}"]
        lines += [f"  {each.path}: error {each.error:.2e}, work +{each.cost:.2%}" for each in self.raised]
        lines += [f"  {each.path}: error {each.error:.2e}, stays at 8 bits: {each.reason}" for each in self.left]
        return "\n".join(lines)


def choose_int16(
    model: nn.Module,
    qconfig_dict: Mapping[str, Any] | QConfigMapping,
    batches: Iterable[Any],
    *,
    budget: float = 0.1,
    example_inputs: Any = None,
) -> Int16Choice:
    """Choose activations of a float model to raise to 16 bits, the most error per work first.

    Args:
        model: as for ``prepare_qat_fx``; it is not changed.
        qconfig_dict: of 8 bits, as for ``prepare_qat_fx``.
        batches: calibration data, each a tensor or a tuple of what forward takes; every activation takes a pass.
        budget: work that may be added, as a share of the 8-bit model's: 0.1 is a tenth.
        example_inputs: as for ``prepare_qat_fx``.

    Raises:
        ArgumentError: the march has 8 bits only, the budget is negative, or there are no batches.
        PrepareError: the model cannot be prepared at 8 bits.
    """
    row = march_row(get_march())
    if qint16 not in row.activations:
        raise ArgumentError(f"{row.march} ({row.boards}) has 8-bit activations only")
    if budget < 0:
        raise ArgumentError(f"expected a budget of 0 or more, got {budget}")
    data = list(batches)
    mapping = QConfigMapping.from_dict(qconfig_dict)
    at_8_bits = prepare_qat_fx(model, mapping, example_inputs=example_inputs)
    fused = fused_model(model, example_inputs=example_inputs)
    errors = _sensitivities(at_8_bits, data, dict(fused.named_modules(remove_duplicate=False)).keys())
    return _Chooser(fused, mapping, row, _work(at_8_bits, data[0])).choose(errors, budget)


def _sensitivities(model: ObservedGraphModule, batches: Sequence[Any], paths: Container[str]) -> dict[str, float]:
    """Return the error that rounding makes, by path, of every activation whose scale is its own and not fixed.

    Args:
        model: prepared.
        batches: calibration data.
        paths: of what a qconfig can be given to, which parts of composites are not.
    """
    model.eval()
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    with torch.no_grad():
        run_batches(model, batches)
    found: dict[str, float] = {}
    with evaluated(model, quantizes=False):
        reference = _outputs(model, batches)
        power = sum(float(y.square().sum()) for y in reference)
        for path, module in model.named_modules():
            fake_quant = module.activation_post_process if isinstance(module, QATModule) and path in paths else None
            if fake_quant is None or isinstance(fake_quant.activation_post_process, FixedScaleObserver):
                continue
            fake_quant.enable_fake_quant()
            pairs = zip(_outputs(model, batches), reference, strict=True)
            found[path] = sum(float((y - z).square().sum()) for y, z in pairs) / power if power else 0.0
            fake_quant.disable_fake_quant()
    return found


def _outputs(model: nn.Module, batches: Sequence[Any]) -> list[Tensor]:
    results = [model(*batch) if isinstance(batch, (tuple, list)) else model(batch) for batch in batches]
    leaves = [leaf for leaf in tree_leaves(results) if isinstance(leaf, Tensor)]
    return [(leaf.dequantize() if isinstance(leaf, QTensor) else leaf).double() for leaf in leaves]


def _work(model: ObservedGraphModule, batch: Any) -> dict[str, int]:
    """Return multiply-accumulates, or elements, of every place of the model."""
    counting = _Counting(model)
    with evaluated(model, quantizes=False):
        counting.run(*batch) if isinstance(batch, (tuple, list)) else counting.run(batch)
    return counting.work


class _Counting(Interpreter):
    def __init__(self, model: ObservedGraphModule) -> None:
        super().__init__(model)
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.work: dict[str, int] = {}

    def run_node(self, n: Node) -> Any:
        """Run a node and count."""
        result = super().run_node(n)
        place = place_of(n, self.modules)
        if isinstance(result, QTensor):
            module = self.modules.get(place)
            taps = module.canonical(module.weight)[0].numel() if isinstance(module, WeightedQAT) else 1
            self.work[place] = self.work.get(place, 0) + result.numel() * taps
        return result


class _Chooser:
    """Adds activations one by one and asks the plan what the march says and which operators read 16 bits."""

    def __init__(
        self, gm: GraphModuleWithAttr, mapping: QConfigMapping, row: MarchRow, work: Mapping[str, int]
    ) -> None:
        self.gm, self.mapping, self.row, self.work = gm, mapping, row, work
        self.resolver = QConfigResolver(gm, mapping)
        self.whole = max(1, sum(work.values()))

    def choose(self, errors: Mapping[str, float], budget: float) -> Int16Choice:
        """Raise greedily until the budget is used up."""
        alone = {path: self._cost(self._plan([path])) for path in errors}
        order = sorted(errors, key=lambda path: errors[path] / max(alone[path], 1e-9), reverse=True)
        chosen: list[str] = []
        raised, left, spent = [], [], 0.0
        for path in order:
            decided = self._plan([*chosen, path])
            added = self._cost(decided) - spent
            reason = self._reason(path, decided)
            if not reason and spent + added > budget:
                reason = f"it takes {added:.2%} more work, {budget - spent:.2%} of the budget is left"
            entry = Raised(path=path, error=errors[path], cost=added, reason=reason)
            if reason:
                left.append(entry)
            else:
                raised.append(entry)
                chosen.append(path)
                spent += added
        left.sort(key=lambda each: each.error, reverse=True)
        return Int16Choice(raised=tuple(raised), left=tuple(left), qconfig_dict=self._entries(chosen))

    def _plan(self, paths: Sequence[str]) -> Plan:
        mapping = QConfigMapping.from_dict(self._entries(paths))
        return plan(self.gm, QConfigResolver(self.gm, mapping), self.row)

    def _entries(self, paths: Sequence[str]) -> dict[str, Any]:
        """Return the qconfig_dict with these activations at 16 bits."""
        names = dict(self.mapping.module_names)
        for path in paths:
            qconfig = self.resolver.qconfig_of(path, self.resolver.modules[path])
            assert qconfig is not None
            assert qconfig.activation is not None
            wide = QConfig(activation=Partial(qconfig.activation, dtype="qint16"), weight=qconfig.weight)
            names[self.gm.fused_modules.get(path, (path,))[0]] = wide
        return {"": self.mapping.default, "module_type": dict(self.mapping.module_types), "module_name": names}

    def _cost(self, decided: Plan) -> float:
        """Return the share of work of the operators that read 16 bits."""
        read = [entry.path for entry in decided.report.quantized if qint16 in entry.inputs]
        return sum(self.work.get(path, 0) for path in read) / self.whole

    def _reason(self, path: str, decided: Plan) -> str:
        if decided.refusals:
            return "; ".join(f"{refusal.path}: {refusal.reason}" for refusal in decided.refusals)
        output = next((entry.output for entry in decided.report.quantized if entry.path == path), None)
        return "" if output is qint16 else "its qconfig attribute has the last word"

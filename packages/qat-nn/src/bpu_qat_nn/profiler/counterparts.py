"""Which call of one model computes what a call of another does: by path, and across fusion by what feeds what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule

from bpu_fx_fusion import FusedModule, GraphModuleWithAttr, TraceError, functional_to_module, trace

from ..ops.weighted.layer import WeightedQAT, WeightedQuantized
from .record import Call, Recording, tensors_in

__all__ = ["Pair", "Pairs", "as_graph", "fused_modules", "pair_calls"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """Two calls that compute the same thing."""

    first: tuple[Call, ...]
    """In the first model: one, or those that the second model does in one operator, in order of execution."""
    second: Call

    @property
    def inputs(self) -> list[Tensor]:
        """What the first model's calls read that none of them computed, in the order of the fused operator's inputs."""
        made: set[int] = set()
        found: list[Tensor] = []
        for call in self.first:
            found += [x for x, number in zip(call.inputs, call.reads, strict=True) if number not in made]
            made.update(call.writes)
        return found

    @property
    def output(self) -> Any:
        """What the first model computed."""
        return self.first[-1].result


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The calls of two models side by side, in the second one's order."""

    pairs: tuple[Pair, ...]
    unpaired: tuple[tuple[str, str], ...]
    """Calls of the second model that have no counterpart, each with the reason; not the parts of one that has."""


def as_graph(model: nn.Module, beside: nn.Module, example_inputs: Any) -> nn.Module:
    """Return a float model as the graph that ``prepare_qat_fx`` starts from, if it is compared with one of that origin.

    Functions then have the names that they have there; with and without example inputs these may differ, and the graph
    with more of the same is taken. Modules are shared with the model. A model that cannot be traced is returned as it
    is; so is one that has a graph already, and one beside a model of the eager mode.
    """
    if isinstance(model, GraphModule) or not isinstance(beside, GraphModuleWithAttr):
        return model
    wanted = beside.generated_modules.keys()
    found: list[GraphModuleWithAttr] = []
    for example in (None, example_inputs):
        try:
            traced = trace(model, example)
        except TraceError:
            continue
        functional_to_module(traced)
        found.append(traced)
        if wanted <= traced.generated_modules.keys():
            return traced
    return max(found, key=lambda each: len(wanted & each.generated_modules.keys()), default=model)


def fused_modules(model: nn.Module) -> Mapping[str, tuple[str, ...]]:
    """Return path -> paths of what was fused there; empty for a model of the eager mode."""
    return model.fused_modules if isinstance(model, GraphModuleWithAttr) else {}


def pair_calls(
    first: Recording,
    second: Recording,
    fused_first: Mapping[str, tuple[str, ...]],
    fused_second: Mapping[str, tuple[str, ...]],
) -> Pairs:
    """Find the counterpart of every call of the second model.

    Args:
        first: what the reference computed.
        second: what the model in question computed.
        fused_first: path of each module that was fused in the first model -> paths of its members.
        fused_second: the same of the second.
    """
    calls: dict[tuple[str, int], Call] = {(call.path, call.number): call for call in first.calls}
    pairs: list[Pair] = []
    unpaired: list[tuple[str, str]] = []
    for call in second.calls:
        members = fused_second.get(call.path)
        if members == fused_first.get(call.path):
            members = (call.path,)
        start = calls.get(((members or (call.path,))[0], call.number))
        chain = None if start is None else _chain(first, start, (members or (call.path,))[1:])
        reason = _objection(chain, call)
        if chain is None or reason:
            unpaired.append((call.label, reason))
        else:
            pairs.append(Pair(first=chain, second=call))
    whole = tuple(f"{pair.second.path}." for pair in pairs)
    return Pairs(pairs=tuple(pairs), unpaired=tuple(each for each in unpaired if not each[0].startswith(whole)))


def _chain(recording: Recording, start: Call, paths: tuple[str, ...]) -> tuple[Call, ...] | None:
    """Return the calls that follow one, each the first of its path that reads what the one before gave."""
    found = [start]
    for path in paths:
        made = set(found[-1].writes)
        following = (each for each in recording.calls if each.path == path and not made.isdisjoint(each.reads))
        call = next(following, None)
        if call is None:
            return None
        found.append(call)
    return tuple(found)


def _objection(chain: tuple[Call, ...] | None, call: Call) -> str:
    """Return why two calls cannot be compared; empty if they can."""
    if chain is None:
        return "the first model has no such place"
    if len(chain) == 1 and _is_fused(call.module) is not _is_fused(chain[0].module):
        return "it is fused in one model only; fuse both in the same way"
    shapes = [[x.numel() for x in tensors] for tensors in (chain[-1].outputs, tensors_in(call.result))]
    return "" if shapes[0] == shapes[1] else "the results have different shapes"


def _is_fused(module: nn.Module | None) -> bool:
    """Whether a module does more than its layer: an addition or an activation besides."""
    if isinstance(module, (WeightedQAT, WeightedQuantized)):
        return module.adds or module.relu is not None
    return isinstance(module, FusedModule)

"""``compare_stages``: the integers of VALIDATION, converted model and Program side by side, place by place."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from bpu_kernels import BACKENDS
from bpu_kernels.difference import describe_difference
from bpu_kernels.engine import native_available
from bpu_qat_nn import ObservedGraphModule, QTensor, convert, convert_fx
from bpu_qat_nn.passes.forward import evaluated
from bpu_qat_nn.profiler import Recording, record
from bpu_qat_nn.profiler.record import arguments_of

from ..segments.run_stage import stored_inputs
from .placed import place_program

__all__ = ["Difference", "StageComparison", "compare_stages"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A place at which two stages do not give the same integers."""

    place: str
    expected: str
    """The stage that was there first."""
    got: str
    text: str
    """How many integers differ, by how much, and where."""

    def __str__(self) -> str:
        return f"{self.place}: {self.got} differs from {self.expected}: {self.text}"


@dataclass(frozen=True, kw_only=True)
class StageComparison:
    """What ``compare_stages`` found; prints as a verdict."""

    stages: tuple[str, ...]
    places: tuple[str, ...]
    """What was compared, in order of execution."""
    differences: tuple[Difference, ...]
    """In order of execution."""

    @property
    def equal(self) -> bool:
        """Whether all integers are equal at all places."""
        return not self.differences

    @property
    def first(self) -> Difference | None:
        """The first difference: what comes later may only follow from it."""
        return next(iter(self.differences), None)

    def __str__(self) -> str:
        if self.first is None:
            return f"{', '.join(self.stages)}: equal integers at all {len(self.places)} places"
        return f"{len(self.differences)} differences at {len(self.places)} places, the first at {self.first}"


def compare_stages(
    prepared: nn.Module,
    example_inputs: Any,
    *,
    converted: nn.Module | None = None,
    backends: Sequence[str] | None = None,
) -> StageComparison:
    """Run a trained model in VALIDATION, converted, and as a Program, and compare the integers of every place.

    Args:
        prepared: calibrated or trained, of ``prepare_qat_fx`` or ``prepare_qat``; afterwards as it was before.
        example_inputs: a tensor, or a tuple of what forward takes.
        converted: the model that will be deployed, which may have been edited; None: it is converted here.
        backends: names in ``bpu_kernels.BACKENDS`` on which the Program runs; None: all that this installation has.

    Raises:
        LoweringError: the converted model has no Program.
        ConvertError: the model has never seen data.
    """
    names = [each for each in BACKENDS if each != "auto"] if backends is None else list(backends)
    if backends is None and not native_available():
        names.remove("native")
    if converted is None:
        converted = convert_fx(prepared) if isinstance(prepared, ObservedGraphModule) else convert(prepared)
    arguments, _ = arguments_of(example_inputs)
    with evaluated(prepared, quantizes=True):
        stages = {"VALIDATION": _integers(record(prepared, arguments))}
    stages["converted"] = _integers(record(converted, arguments))
    placed = place_program(converted, arguments)
    inputs = stored_inputs(placed.program, inspect.signature(converted.forward).bind(*arguments).arguments)
    for backend in names:
        stages[f"Program on {backend}"] = placed.run(inputs, backend)
    others = [values for name, values in stages.items() if name != "converted"]
    places = [place for place in stages["converted"] if any(place in values for values in others)]
    found = [difference for place in places for difference in _differences(place, stages)]
    return StageComparison(stages=tuple(stages), places=tuple(places), differences=tuple(found))


def _integers(recording: Recording) -> dict[str, Tensor]:
    """Return the integers of every quantized result by place, as a PlacedProgram names them."""
    found: dict[str, Tensor] = {}
    for call in recording.calls:
        several = isinstance(call.result, (tuple, list))
        for index, result in enumerate(call.result if several else [call.result]):
            if isinstance(result, QTensor):
                found[f"{call.label}[{index}]" if several else call.label] = result.int_repr()
    return found


def _differences(place: str, stages: Mapping[str, Mapping[str, Tensor]]) -> list[Difference]:
    """Compare each stage that has the place with the one before it."""
    holding = [name for name, values in stages.items() if place in values]
    found = []
    for expected, got in pairwise(holding):
        pair = (stages[got][place].cpu().numpy(), stages[expected][place].cpu().numpy())
        text = describe_difference(*pair)
        if text:
            found.append(Difference(place=place, expected=expected, got=got, text=text))
    return found

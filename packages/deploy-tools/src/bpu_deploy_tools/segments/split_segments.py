"""``split_segments``: cut a converted model at its inner QuantStubs into parts that are deployed on their own.

Given:   `backbone -> QuantStub -> head`, trained as one model
Result:  `stage1: backbone` and `stage2: QuantStub -> head`, each a module and a Program; integers pass between them
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule

from bpu_kernels import Program
from bpu_qat_nn import QTensor, QuantizedGraphModule

from ..errors import LoweringError
from ..lowering.lower import expect_sources, lower
from .cut import Part, result_of, segment_parts
from .ports import Manifest, ManifestEntry, Port, program_inputs, program_outputs, value_ports
from .run_stage import run_stage
from .stages import Stages, observed_values

__all__ = ["Segment", "Segments", "split_segments"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Segment:
    """A part of a converted model.

    ``module`` takes its inputs by name and returns its outputs in a dict, so ``second(**first(x))`` chains two. Where a
    stage begins with a QuantStub it takes the integers (a QTensor) or their real values alike.
    """

    name: str
    """"stage1", "stage2", ... on the BPU; "cpu1" runs between stages 1 and 2, "cpu0" before the first."""
    module: GraphModule
    program: Program | None
    """None: it works on real values, on the CPU."""
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    example: Mapping[str, Any]
    """What the module gave for the example, for its structure."""


class Segments:
    """The parts of a model, in the order in which they run.

    ``segments(*inputs)`` computes with the modules, ``segments.run(*inputs)`` with the Programs, both exactly what the
    whole model computes; ``segments["stage1"]`` is one of them, ``segments.manifest`` tells all about the borders.
    """

    def __init__(self, whole: QuantizedGraphModule, parts: tuple[Segment, ...], result: GraphModule) -> None:
        self.march = whole.march
        self._parts, self._result = parts, result
        self._signature = inspect.signature(whole.forward)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, name: str) -> Segment:
        """Return the segment of this name."""
        return {part.name: part for part in self._parts}[name]

    @property
    def manifest(self) -> Manifest:
        """Name, shape, type and scale of every tensor at a border."""
        return Manifest(
            march=str(self.march),
            segments=tuple(
                ManifestEntry(
                    name=part.name,
                    runs_on="cpu" if part.program is None else "bpu",
                    inputs=part.inputs,
                    outputs=part.outputs,
                )
                for part in self._parts
            ),
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the whole model returns."""
        return self._evaluate(args, kwargs, lambda part, given: part.module(**given))

    def run(self, *args: Any, backend: str = "numpy", **kwargs: Any) -> Any:
        """Return the same from the Programs, which hand integers to each other; CPU steps run in between.

        Args:
            args: what the model takes, real values.
            backend: of the Programs, a name in ``bpu_kernels.BACKENDS``.
            kwargs: likewise, by name.
        """

        def step(part: Segment, given: dict[str, Any]) -> Any:
            if part.program is None:
                return part.module(**given)
            return run_stage(part.program, given, part.example, backend)

        return self._evaluate(args, kwargs, step)

    def save(self, folder: str | Path) -> None:
        """Write ``manifest.json`` and the Programs, ``<name>.bpu``; CPU steps are code of the model and stay there."""
        self.manifest.save(folder, {part.name: part.program for part in self._parts if part.program is not None})

    def _evaluate(
        self, args: Any, kwargs: Mapping[str, Any], step: Callable[[Segment, dict[str, Any]], Mapping[str, Any]]
    ) -> Any:
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        known: dict[str, Any] = dict(bound.arguments)
        with torch.no_grad():
            for part in self._parts:
                known.update(step(part, {name: known[name] for name in _takes(part.module)}))
            return self._result(**{name: known[name] for name in _takes(self._result)})


def split_segments(
    quantized: QuantizedGraphModule, example_inputs: Any, *, input_source: str | Mapping[str, str] = "ddr"
) -> Segments:
    """Cut a converted model at its inner QuantStubs, for inputs of these shapes.

    A stage begins at the QuantStubs whose input was computed, and goes as far as it can; what works on real values in
    between is a step on the CPU. A quantized tensor that goes around a QuantStub crosses the border as well.

    Args:
        quantized: a model that ``convert_fx`` returned, edited or not; it is not changed.
        example_inputs: a tensor, or a tuple of what forward takes, real values.
        input_source: "ddr", "pyramid" or "resizer", for all inputs of the whole model or by name.

    Raises:
        LoweringError: a stage has no Program; the message names stage and place.
        UnsupportedError: the march cannot run a stage.
    """
    arguments = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    with torch.no_grad():
        stages = Stages(quantized, observed_values(quantized, arguments))
        parts = segment_parts(quantized, stages)
        expect_sources(input_source, [name for part in parts if part.on_bpu for name in part.outside])
        segments = tuple(_segment(part, input_source) for part in parts)
    return Segments(quantized, segments, result_of(quantized, stages))


def _segment(part: Part, input_source: str | Mapping[str, str]) -> Segment:
    if not part.on_bpu:
        given, gives = (
            tuple(port for name, value in values.items() for port in value_ports(name, value))
            for values in (part.given, part.gives)
        )
        return Segment(
            name=part.name, module=part.module, program=None, inputs=given, outputs=gives, example=part.gives
        )
    sources = dict.fromkeys(part.outside, input_source) if isinstance(input_source, str) else input_source
    by_name = {name: sources[name] for name in part.outside if name in sources}
    example = tuple(_real(value) for value in part.given.values())
    try:
        program = lower(part.module, example, input_source=by_name)
    except LoweringError as error:
        raise LoweringError(f"{part.name}: {error}") from error
    return Segment(
        name=part.name,
        module=part.module,
        program=program,
        inputs=program_inputs(program),
        outputs=program_outputs(program),
        example=part.gives,
    )


def _real(value: Any) -> Any:
    return value.dequantize() if isinstance(value, QTensor) else value


def _takes(module: GraphModule) -> list[str]:
    return [str(node.target) for node in module.graph.nodes if node.op == "placeholder"]

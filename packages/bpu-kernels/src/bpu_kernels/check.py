"""The checks that make a Program valid; all problems are collected and raised together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from math import isfinite, prod
from reprlib import repr as shortened

import numpy as np

from .dtypes import DTYPES, qint8
from .errors import BpuKernelsError, InvalidProgramError, Problem, UnsupportedError
from .fields import channel_problems, malformed
from .inputs import stored_inputs
from .kernel import Kernel, TensorSpec, outside
from .march import MarchRow
from .program_graph import Node, ProgramGraph, ProgramInput
from .table import KERNELS

__all__ = ["SOURCES", "infer", "validate"]

SOURCES = ("ddr", "pyramid", "resizer")
"""Where an input can come from."""

MOST_AXES = 10
"""Of any tensor; documented for reshape."""
MOST_BYTES = 2**30
"""Of any tensor; documented for Bayes."""
MOST_LETTERS = 1000
"""Of any name."""
LEAST_RESIZER_SIDE = 32
"""Of an image that the resizer reads; its region is the whole image here."""


def infer(kernel: Kernel, *inputs: TensorSpec) -> TensorSpec:
    """Return shape and type of a kernel's output after checking that it is well formed.

    Raises:
        InvalidProgramError: the fields are not what they must be, or the inputs do not fit them.
    """
    least, most = kernel.arity
    if type(kernel) not in KERNELS.values():
        raise InvalidProgramError(f"{type(kernel).__name__} is no operator of bpu_kernels.table.KERNELS")
    if not least <= len(inputs) <= most:
        expected = str(least) if least == most else f"{least} to {most}"
        raise InvalidProgramError(f"{kernel.name} takes {expected} inputs, got {len(inputs)}")
    found = malformed(kernel)
    if not found:
        spec = kernel.infer(*inputs)
        found = [*spec_problems(spec), *channel_problems(kernel, spec.shape[-1])]
    if found:
        raise InvalidProgramError(f"{kernel.name}: {'; '.join(found)}")
    return spec


def validate(program: ProgramGraph) -> None:
    """Check names, order, operators, scales, sources and outputs of a Program.

    Raises:
        InvalidProgramError: it is not well formed.
        UnsupportedError: it is, but the march cannot run it.
    """
    checker = _Checker(program.row)
    for each in program.inputs:
        checker.input(each)
    for node in program.nodes:
        checker.node(node)
    checker.outputs(program)
    checker.extras(program)
    if checker.malformed:
        raise InvalidProgramError("the Program is not well formed:", checker.malformed + checker.unsupported)
    if checker.unsupported:
        raise UnsupportedError(f"the march {program.march} cannot run this Program:", checker.unsupported)


def spec_problems(spec: TensorSpec) -> list[str]:
    """Return what is wrong with a shape or type, whatever the march."""
    if any(type(n) is not int or n < 1 for n in spec.shape):
        return [f"shape {shortened(spec.shape)} (expected: positive integers)"]
    if not 1 <= len(spec.shape) <= MOST_AXES:
        return [f"{len(spec.shape)} dimensions (allowed: 1..{MOST_AXES})"]
    if not any(spec.dtype is dtype for dtype in DTYPES.values()):
        return [f"type {spec.dtype!r} (expected: {', '.join(DTYPES)})"]
    size = prod(spec.shape) * spec.dtype.bits // 8
    return [f"{spec} takes {size} bytes (allowed: {MOST_BYTES})"] if size > MOST_BYTES else []


def scale_problems(scale: object, channels: int) -> list[str]:
    """Return what is wrong with the scale of a tensor."""
    if not isinstance(scale, tuple) or any(not isinstance(s, float) or not isfinite(s) or s <= 0 for s in scale):
        return [f"scale {shortened(scale)} (expected: a tuple of positive, finite floats)"]
    if len(scale) not in (1, channels):
        return [f"{len(scale)} scales (expected: 1 or {channels}, one per channel)"]
    return []


def name_problems(name: object) -> list[str]:
    """Return what is wrong with a name."""
    if isinstance(name, str) and 1 <= len(name) <= MOST_LETTERS and name.isprintable():
        return []
    return [f"name {shortened(name)} (expected: 1 to {MOST_LETTERS} printable characters)"]


def source_problems(each: ProgramInput, row: MarchRow) -> list[str]:
    """Return why an input cannot come from its source."""
    if each.source not in SOURCES:
        return [f"source {each.source!r} (allowed: {', '.join(SOURCES)})"]
    if each.source == "ddr":
        allowed = ", ".join(map(str, row.activations))
        return [] if each.spec.dtype in row.activations else [f"input type {each.spec.dtype} (allowed: {allowed})"]
    shape = each.spec.shape
    if each.spec.dtype is not qint8 or len(shape) != 4 or shape[0] != 1 or shape[3] != 3:
        return [f"{each.spec} from {each.source} (expected: qint8[1 x height x width x 3])"]
    found = outside("height or width", shape[1:3], row.feature_size)
    if shape[1] % 2 or shape[2] % 2:
        found.append(f"{shape[1]}x{shape[2]} from {each.source} (expected: even, since chroma has half the resolution)")
    if each.source == "resizer" and min(shape[1:3]) < LEAST_RESIZER_SIDE:
        found.append(f"{shape[1]}x{shape[2]} from resizer (expected: at least {LEAST_RESIZER_SIDE} on each side)")
    return found


class _Checker:
    """Walks a Program, knows the tensors so far, and collects problems of both kinds."""

    def __init__(self, row: MarchRow) -> None:
        self.row = row
        self.malformed: list[Problem] = []
        self.unsupported: list[Problem] = []
        self.specs: dict[str, TensorSpec | None] = {}
        """None: a tensor whose node is wrong, so that nothing more is said of the nodes that read it."""
        self.scales: dict[str, tuple[float, ...]] = {}
        self.made: dict[str, str] = {}
        """Tensor by the name of the node that makes it."""

    def input(self, each: ProgramInput) -> None:
        found = [*name_problems(each.name), *spec_problems(each.spec)]
        if not found:
            found += scale_problems(each.scale, each.spec.shape[-1])
        if not found:
            self._add(self.unsupported, each.name, source_problems(each, self.row))
        self._tensor(each.name, None if found else each.spec, each.scale, found)

    def node(self, node: Node) -> None:
        found = name_problems(node.name)
        if node.name in self.made:
            found.append("another node has this name")
        self.made[node.name] = node.output
        missing = [name for name in node.inputs if name not in self.specs]
        if missing:
            found.append(f"no input or earlier node makes {', '.join(map(repr, missing))}")
        inputs = [self.specs.get(name) for name in node.inputs]
        known = [spec for spec in inputs if spec is not None]
        spec = self._infer(node, known, found) if len(known) == len(inputs) else None
        self._tensor(node.output, spec, node.scale, found, node.name)

    def _infer(self, node: Node, inputs: list[TensorSpec], found: list[str]) -> TensorSpec | None:
        try:
            spec = infer(node.kernel, *inputs)
        except BpuKernelsError as error:
            found.append(str(error))
            return None
        wrong = scale_problems(node.scale, spec.shape[-1]) or self._kept_scale_problems(node)
        found += wrong
        if node.kernel.name in self.row.refused_kernels:
            self._add(self.unsupported, node.name, [f"{self.row.march} has no {node.kernel.name}"])
        else:
            self._add(self.unsupported, node.name, node.kernel.problems(self.row, *inputs))
        return None if wrong else spec

    def _kept_scale_problems(self, node: Node) -> list[str]:
        """An operator that copies integers cannot change what they mean (18)."""
        if not node.kernel.keeps_scale:
            return []
        given = {s for name in node.inputs for s in self.scales[name]}
        per_tensor = len(node.scale) == 1
        if set(node.scale) == given or (not per_tensor and set(node.scale) <= given):
            return []
        shown = ", ".join(f"{s:g}" for s in sorted(given)[:4])
        return [f"{node.kernel.name} copies integers of scale {shown}, so they cannot have {shortened(node.scale)} now"]

    def outputs(self, program: ProgramGraph) -> None:
        if not program.inputs or not program.outputs:
            self._add(self.malformed, "program", ["it needs at least one input and one output"])
        names = Counter(each.name for each in program.outputs)
        named = {name: name for name in self.specs} | self.made
        for each in program.outputs:
            found = name_problems(each.name)
            if names[each.name] > 1:
                found.append("another output has this name")
            if each.tensor not in self.specs:
                found.append(f"no input or node makes {each.tensor!r}")
            elif named.get(each.name, each.tensor) != each.tensor:
                found.append(f"this is the name of another tensor than {each.tensor!r}")
            self._add(self.malformed, f"output {each.name}", found)

    def extras(self, program: ProgramGraph) -> None:
        """Metadata, and the self-test against the tensors that it names."""
        for key, value in program.metadata.items():
            if name_problems(key) or not _is_text(value):
                self._add(self.malformed, f"metadata {shortened(key)}", ["expected a printable name and text"])
        test = program.self_test
        if test is None or self.malformed:
            return
        specs = {each.name: self.specs[each.tensor] for each in program.outputs}
        self._add(self.malformed, "self-test", _output_problems(test.outputs, specs))
        try:
            stored = stored_inputs(program, test.inputs)
        except BpuKernelsError as error:
            self._add(self.malformed, "self-test", [str(error)])
            return
        given = {name: value.dtype for name, value in test.inputs.items()}
        wrong = [
            f"input {name} is {given[name]}, not {v.dtype}" for name, v in stored.items() if given[name] != v.dtype
        ]
        self._add(self.malformed, "self-test", wrong)

    def _tensor(
        self, name: str, spec: TensorSpec | None, scale: tuple[float, ...], found: list[str], place: str | None = None
    ) -> None:
        if name in self.specs:
            found.append(f"the tensor {name!r} is made twice")
        self.specs[name] = spec
        self.scales[name] = scale
        self._add(self.malformed, name if place is None else place, found)

    @staticmethod
    def _add(to: list[Problem], place: str, reasons: Iterable[str]) -> None:
        listed = tuple(reasons)
        if listed:
            to.append(Problem(place, listed))


def _is_text(value: object) -> bool:
    """Whether it is text that can be written as UTF-8, which half of a surrogate pair cannot."""
    return isinstance(value, str) and value.encode(errors="replace").decode() == value


def _output_problems(outputs: Mapping[str, np.ndarray], specs: Mapping[str, TensorSpec | None]) -> list[str]:
    """Return how the outputs of a self-test differ in name, shape or type from those of the Program."""
    if set(outputs) != set(specs):
        return [f"outputs {sorted(outputs)} (expected: {sorted(specs)})"]
    return [
        f"output {name} is {value.dtype}{value.shape} (expected: {spec})"
        for name, value in outputs.items()
        if (spec := specs[name]) is not None and (value.shape, value.dtype) != (spec.shape, spec.dtype.numpy)
    ]

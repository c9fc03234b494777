"""Where the tensors of a Program lie: aliases, slices of concatenations, results in place of operands, and the arena.

Given  relu(conv(x)) and pool(x) joined by a concatenation along the channels,
Result one buffer for conv and relu, which is a slice of the concatenation's next to pool's; nothing is copied.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import prod

from ..kernel import Kernel, TensorSpec
from ..ops.concat import Concat
from ..ops.conv import Conv2d, Conv3d
from ..ops.conv_transpose import ConvTranspose2d
from ..ops.elementwise import Add, AddScaled, Mul, Reinterpret, Relu, Rescale
from ..ops.layout import Reshape
from ..ops.linear import Linear
from ..ops.lut import Lut8, Lut16
from ..ops.reduce import Sum
from ..program_graph import Node, ProgramGraph
from .positive import positive_tensors

__all__ = ["ARENA", "INPUT", "OUTPUT", "Buffer", "Home", "Placed", "Storage", "pack", "place"]

ARENA, INPUT, OUTPUT = range(3)
"""Spaces, as native/src/tensor.h numbers them."""

ALIGNMENT = 64
"""Bytes; a cache line, and the widest vector."""

ALIASES: frozenset[type[Kernel]] = frozenset({Reinterpret, Reshape})
"""Operators for which nothing runs: the output is the input."""
NEEDS_DENSE: frozenset[type[Kernel]] = frozenset({Reinterpret, Reshape, Sum})
"""Operators that merge axes, so that neither their input nor their output is a slice of channels."""
IN_PLACE: dict[type[Kernel], tuple[int, ...]] = {
    Add: (0, 1),
    AddScaled: (0, 1),
    Conv2d: (1,),
    Conv3d: (1,),
    ConvTranspose2d: (1,),
    Linear: (1,),
    Lut16: (0,),
    Lut8: (0,),
    Mul: (0, 1),
    Relu: (0,),
    Rescale: (0,),
}
"""Inputs that an output may replace: every element is read before, and by whom, that element is written."""


@dataclass(frozen=True)
class Home:
    """A tensor's place within a buffer, in elements."""

    buffer: str
    """Named after the tensor that fills it."""
    offset: int
    pitch: int
    """Between positions, that is, between neighbours along the last axis but one."""


@dataclass(frozen=True)
class Buffer:
    """Memory that is needed from the first to the last step, both included, that touch it."""

    bytes: int
    birth: int
    death: int


@dataclass(frozen=True)
class Placed:
    """A tensor as a step sees it."""

    space: int
    index: int
    """Which input or output of the Program; 0 in the arena."""
    offset: int
    """In bytes."""
    pitch: int
    spec: TensorSpec
    positive: bool = False
    """Whether no value can be below 0."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Elements between neighbours along every axis."""
        shape = self.spec.shape
        return (*(self.pitch * prod(shape[axis + 1 : -1]) for axis in range(len(shape) - 1)), 1)

    def part(self, axis: int, start: int, spec: TensorSpec) -> Placed:
        """Return the place of a part that starts at an index of an axis; it keeps the strides of the whole."""
        offset = self.offset + start * self.strides[axis] * spec.dtype.bits // 8
        return Placed(self.space, self.index, offset, self.pitch, spec)


@dataclass(frozen=True)
class Storage:
    """The places of all tensors."""

    placed: Mapping[str, Placed]
    homes: Mapping[str, Home]
    outputs: tuple[str, ...]
    """Buffers that are handed out, each a dense array named after the tensor that fills it."""
    arena_bytes: int


def place(program: ProgramGraph, wanted: Collection[str]) -> Storage:
    """Decide where every tensor lies; ``wanted`` are the tensors that are handed out."""
    specs, positive = program.specs, positive_tensors(program)
    homes = _homes(program, wanted)
    inputs = [each.name for each in program.inputs]
    outputs = tuple(dict.fromkeys(homes[name].buffer for name in wanted if homes[name].buffer not in inputs))
    homes, buffers = _in_place(program, homes, {*inputs, *outputs})
    offsets, arena_bytes = pack(buffers)
    placed = {}
    for name, home in homes.items():
        item = specs[name].dtype.bits // 8
        space, index, base = ARENA, 0, offsets.get(home.buffer, 0)
        if home.buffer in inputs:
            space, index = INPUT, inputs.index(home.buffer)
        elif home.buffer in outputs:
            space, index = OUTPUT, outputs.index(home.buffer)
        placed[name] = Placed(space, index, base + home.offset * item, home.pitch, specs[name], name in positive)
    return Storage(placed, homes, outputs, arena_bytes)


def _homes(program: ProgramGraph, wanted: Collection[str]) -> dict[str, Home]:
    """Return the place of every tensor before anything is written in place of an operand."""
    specs, inside = program.specs, _slices_of_concats(program, wanted)
    homes: dict[str, Home] = {}

    def home(name: str) -> Home:
        shape = specs[name].shape
        if name not in inside:
            return Home(name, 0, shape[-1])
        joined, positions, channels = inside[name]
        around = home(joined)
        return Home(around.buffer, around.offset + positions * around.pitch + channels, around.pitch)

    for each in program.inputs:
        homes[each.name] = home(each.name)
    for node in program.nodes:
        if type(node.kernel) in ALIASES:
            within = homes[node.inputs[0]]
            shape = specs[node.output].shape
            homes[node.output] = Home(within.buffer, within.offset, shape[-1])
        else:
            homes[node.output] = home(node.output)
    return homes


def _slices_of_concats(program: ProgramGraph, wanted: Collection[str]) -> dict[str, tuple[str, int, int]]:
    """Return the tensors that their producers write into a concatenation: its name, positions and channels before."""
    specs = program.specs
    free = {node.output for node in program.nodes if type(node.kernel) not in NEEDS_DENSE} - set(wanted)
    free -= {name for node in program.nodes if type(node.kernel) in NEEDS_DENSE for name in node.inputs}
    inside: dict[str, tuple[str, int, int]] = {}
    for node in program.nodes:
        if not isinstance(node.kernel, Concat):
            continue
        axis, before = node.kernel.axis, 0
        for name in node.inputs:
            shape = specs[name].shape
            along_channels = axis == len(shape) - 1
            if name in free and name not in inside and (along_channels or prod(shape[:axis]) == 1):
                positions = 0 if along_channels else before * prod(shape[axis + 1 : -1])
                inside[name] = (node.output, positions, before if along_channels else 0)
            before += shape[axis]
    return inside


def _in_place(
    program: ProgramGraph, homes: dict[str, Home], kept: Collection[str]
) -> tuple[dict[str, Home], dict[str, Buffer]]:
    """Let outputs replace operands that die; return the homes and the buffers of the arena with their lives."""
    specs = program.specs
    replaced: dict[str, str] = {}

    def buffer(name: str) -> str:
        found = homes[name].buffer
        while found in replaced:
            found = replaced[found]
        return found

    births, deaths = _lives(program, homes)
    for index, node in enumerate(program.nodes):
        out = buffer(node.output)
        if out != node.output or out in kept:
            continue
        operands = [buffer(name) for name in node.inputs]
        for position in IN_PLACE.get(type(node.kernel), ()):
            if position < len(operands) and _can_replace(node, position, specs, homes, operands, deaths, index, kept):
                replaced[out] = operands[position]
                deaths[operands[position]] = deaths[out]
                break
    moved = {name: Home(buffer(name), home.offset, home.pitch) for name, home in homes.items()}
    roots = sorted({home.buffer for home in moved.values()} - set(kept), key=births.__getitem__)
    sizes = {name: prod(specs[name].shape) * specs[name].dtype.bits // 8 for name in roots}
    return moved, {name: Buffer(sizes[name], births[name], deaths[name]) for name in roots}


def _lives(program: ProgramGraph, homes: Mapping[str, Home]) -> tuple[dict[str, int], dict[str, int]]:
    births: dict[str, int] = {}
    deaths: dict[str, int] = {}
    for index, node in enumerate(program.nodes):
        births.setdefault(homes[node.output].buffer, index)
        for name in (*node.inputs, node.output):
            deaths[homes[name].buffer] = index
    return births, deaths


def _can_replace(
    node: Node,
    position: int,
    specs: Mapping[str, TensorSpec],
    homes: Mapping[str, Home],
    operands: list[str],
    deaths: Mapping[str, int],
    index: int,
    kept: Collection[str],
) -> bool:
    """Whether the output may be written over an input: it fills a buffer of the arena that nobody reads later."""
    name, buffer = node.inputs[position], operands[position]
    same = {other for other in IN_PLACE[type(node.kernel)] if other < len(operands) and node.inputs[other] == name}
    others = [operand for other, operand in enumerate(operands) if other not in same]
    whole = specs[buffer].shape == specs[name].shape and homes[name].offset == 0
    return (
        buffer not in kept
        and deaths[buffer] == index
        and whole
        and buffer not in others
        and (specs[name].shape, specs[name].dtype) == (specs[node.output].shape, specs[node.output].dtype)
    )


def pack(buffers: Mapping[str, Buffer]) -> tuple[dict[str, int], int]:
    """Return offsets at which no two buffers of the same time overlap, largest first, and the bytes in all."""
    offsets: dict[str, int] = {}
    for name, buffer in sorted(buffers.items(), key=lambda entry: -entry[1].bytes):
        taken = sorted(
            (offsets[other], offsets[other] + buffers[other].bytes)
            for other in offsets
            if buffers[other].birth <= buffer.death and buffer.birth <= buffers[other].death
        )
        offsets[name] = _first_gap(taken, buffer.bytes)
    return offsets, max((offsets[name] + buffers[name].bytes for name in buffers), default=0)


def _first_gap(taken: Iterable[tuple[int, int]], size: int) -> int:
    at = 0
    for begin, end in taken:
        if begin - at >= size:
            break
        at = max(at, -(-end // ALIGNMENT) * ALIGNMENT)
    return at

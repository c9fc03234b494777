"""Tape: operators that run one by one are noted, and become one Program that the native engine runs in one call.

What an operator read is told by where it lies: in an input, or in what an operator before it has written. What torch
sees of that memory by strides, such as a part of it, or another order of its axes, becomes kernels that move elements.
Memory that torch makes by functions of its own is not on the tape unless it is told what they copied; then there is no
Program.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from ..engine.backend import native_engine
from ..engine.plan import Plan
from ..errors import InvalidProgramError, UnsupportedError
from ..fields import map_arrays, stored_array
from ..kernel import Kernel, TensorSpec
from ..march import MarchRow
from ..ops.elementwise import Add, AddScaled, Extremum, Mul
from ..ops.layout import Transpose
from ..program import Program
from ..program_graph import ProgramInput, ProgramOutput
from .growing_graph import SCALE, GrowingGraph, Move
from .seen import seen
from .stored import QUANT_DTYPES

__all__ = ["Recording", "Tape", "by_stride", "noted", "open_tape", "tape_of"]

_BROADCAST = (Add, AddScaled, Extremum, Mul)


@dataclass(frozen=True)
class _Written:
    """Memory as an operator left it."""

    name: str
    """Tensor of the Program that has the same elements in the same (row-major) order, in whatever shape."""
    tensor: Tensor
    """Its elements lie without gaps; keeps the memory from being given to another."""
    version: int


@dataclass
class Tape:
    """Operators in the order in which they ran; see ``tape_of``."""

    inputs: Sequence[Tensor]
    graph: GrowingGraph = field(default_factory=GrowingGraph)
    marches: set[MarchRow] = field(default_factory=set)
    is_whole: bool = True
    """Whether everything that was read was on the tape, and every step is one that other inputs take too."""
    _written: dict[int, _Written] = field(default_factory=dict)
    """By address of the storage."""
    _seen: dict[tuple[object, ...], str] = field(default_factory=dict)
    """By where and how they lie: tensors of the Program that were made of what torch sees."""

    def __post_init__(self) -> None:
        for i, x in enumerate(self.inputs):
            self.graph.shapes[_input(i)] = tuple(x.shape)
            self._write(_input(i), x)

    def note(self, kernel: Kernel, row: MarchRow, operands: Sequence[Tensor], out: Tensor) -> None:
        """Note an operator; the axes of operands and output are in the engine's order."""
        if self._at(out) is not None:  # memory of an operand, seen in another way
            return
        names = self._names([_with_batch(kernel, x, out) for x in operands])
        if names is None:
            self.is_whole = False
            return
        self.marches.add(row)
        arrays = map_arrays(kernel, lambda path, tensor: stored_array(path, tensor.detach().numpy()))
        self._write(self.graph.add(arrays, tuple(names), tuple(out.shape)), out)

    def copied(self, x: Tensor, out: Tensor, move: Move | None = None) -> None:
        """Note that torch has copied a tensor's elements where it has not only seen them.

        Args:
            x: the tensor.
            out: the copy, of the same elements in row-major order if there is no ``move``.
            move: picks elements axis by axis.
        """
        name = self._name(x) if self._at(out) is None else None
        if name is not None and move is not None:
            name = self.graph.pick(name, x.shape, move)
        if name is not None and prod(self.graph.shapes[name]) == out.numel():
            self._write(name, out)

    def recording(self, outputs: Sequence[Tensor]) -> Recording | None:
        """Return what was noted as one Program, from the inputs to these outputs; None if there is none."""
        engine, dense = native_engine(), [self._without_gaps(out) for out in outputs]
        names = self._names([out.permute(by_stride(out)) for out in dense])
        unchanged = all(_version(each.tensor) == each.version for each in self._written.values())
        if engine is None or names is None or not (self.is_whole and unchanged and len(self.marches) == 1):
            return None
        try:
            program = Program(
                march=next(iter(self.marches)).march,
                inputs=tuple(
                    ProgramInput(name=_input(i), spec=_spec(x), scale=SCALE) for i, x in enumerate(self.inputs)
                ),
                nodes=tuple(self.graph.nodes),
                outputs=tuple(ProgramOutput(name=f"output{i}", tensor=name) for i, name in enumerate(names)),
            )
        except (InvalidProgramError, UnsupportedError):  # torch's form takes some shapes that no Program holds
            return None
        plan = Plan(program, sorted(set(names)), *engine)
        return Recording(program, plan, tuple(names), tuple((out.shape, out.stride()) for out in dense))

    def _without_gaps(self, x: Tensor) -> Tensor:
        """Return an output, or a copy of it if there are gaps in its memory."""
        if x.permute(by_stride(x)).is_contiguous():
            return x
        copy = x.contiguous()
        self.copied(x, copy)
        return copy

    def _at(self, x: Tensor) -> _Written | None:
        """Return the memory in which a tensor lies."""
        found = self._written.get(x.untyped_storage().data_ptr())
        if found is None or found.tensor.dtype != x.dtype or not x.numel():
            return None
        return found if 0 <= _offset(x, found) < found.tensor.numel() else None

    def _names(self, tensors: Sequence[Tensor]) -> list[str] | None:
        """Return the tensors of the Program that these are; None if one of them is none."""
        names = [self._name(x) for x in tensors]
        return None if None in names else [name for name in names if name is not None]

    def _name(self, x: Tensor) -> str | None:
        """Return the tensor of the Program that one is, made if need be of that whose memory it sees."""
        found = self._at(x)
        if found is None:
            return None
        if found.tensor.shape == x.shape and found.tensor.stride() == x.stride():
            return self.graph.shaped(found.name, tuple(x.shape))
        key = (x.data_ptr(), x.shape, x.stride())
        if key not in self._seen:
            kernels = seen(found.tensor.numel(), x.shape, x.stride(), _offset(x, found))
            if kernels is None:
                return None
            name = self._in_memory_order(found)
            for kernel, times in kernels:
                name = self.graph.applied(kernel, name, times)
            self._seen[key] = name
        return self._seen[key]

    def _in_memory_order(self, written: _Written) -> str:
        order = by_stride(written.tensor)
        if order == tuple(range(len(order))):
            return written.name
        name = self.graph.shaped(written.name, tuple(written.tensor.shape))
        return self.graph.applied(Transpose(axes=order), name)

    def _write(self, name: str, out: Tensor) -> None:
        self._written[out.untyped_storage().data_ptr()] = _Written(name, out, _version(out))


@dataclass(frozen=True, eq=False)
class Recording:
    """A tape as one call of the engine; threads may run it at the same time."""

    program: Program
    plan: Plan
    names: tuple[str, ...]
    """Tensors that are handed out."""
    forms: tuple[tuple[torch.Size, tuple[int, ...]], ...]
    """Shape and strides in which torch had them."""

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the outputs for inputs of the shapes that were noted, dense and in the engine's order of axes."""
        arrays = {_input(i): x.numpy() for i, x in enumerate(inputs)}
        made = self.plan.run(self.program.nodes, arrays, None, torch.get_num_threads())
        return [
            torch.from_numpy(made[name]).as_strided(*form) for name, form in zip(self.names, self.forms, strict=True)
        ]


_open: ContextVar[Tape | None] = ContextVar("bpu_kernels_tape", default=None)


@contextmanager
def tape_of(inputs: Sequence[Tensor]) -> Iterator[Tape]:
    """Note what the engine runs inside.

    Args:
        inputs: dense CPU tensors of int8, int16 or int32, in the engine's order of axes: what is noted may read them,
            or views of their memory.
    """
    tape = Tape(inputs)
    token = _open.set(tape)
    try:
        yield tape
    finally:
        _open.reset(token)


def noted(kernel: Kernel, row: MarchRow, operands: Sequence[Tensor], out: Tensor) -> None:
    """Note on the open tape, if there is one, what has run; see ``Tape.note``."""
    tape = open_tape()
    if tape is not None:
        tape.note(kernel, row, operands, out)


def open_tape() -> Tape | None:
    """Return the tape on which is noted what runs here; None if there is none."""
    return _open.get()


def _input(index: int) -> str:
    return f"input{index}"


def _spec(x: Tensor) -> TensorSpec:
    return TensorSpec(tuple(x.shape), QUANT_DTYPES[x.dtype])


def by_stride(x: Tensor) -> tuple[int, ...]:
    """Return the axes in the order in which they lie in memory."""
    return tuple(sorted(range(x.dim()), key=x.stride, reverse=True))


def _with_batch(kernel: Kernel, x: Tensor, out: Tensor) -> Tensor:
    """Return an operand, seen once for every element of the batch, which a Program does not broadcast."""
    repeats = type(kernel) in _BROADCAST and x.dim() == out.dim() > 0 and len(x) == 1
    return x.expand(len(out), *x.shape[1:]) if repeats else x


def _offset(x: Tensor, written: _Written) -> int:
    return int(x.storage_offset()) - int(written.tensor.storage_offset())


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version

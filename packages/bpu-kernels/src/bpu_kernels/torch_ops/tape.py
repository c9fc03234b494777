"""Tape: operators that the native engine runs one by one are noted, and become one Program that it runs in one call.

What an operator read is told by where it lies: in an input, or in what an operator before it has written. Functions of
torch in between that only see the same memory in another way are reshapes of it; those that make memory of their own
are not on the tape, and then there is no Program.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..engine.backend import native_engine
from ..engine.plan import Plan
from ..errors import InvalidProgramError, UnsupportedError
from ..fields import map_arrays
from ..kernel import Kernel, TensorSpec
from ..march import MarchRow
from ..ops.layout import Reshape
from ..program import Program
from ..program_graph import Node, ProgramInput, ProgramOutput
from .stored import QUANT_DTYPES

__all__ = ["Recording", "Tape", "noted", "tape_of"]

_SCALE = (1.0,)
"""Of every tensor: integers do not depend on what they mean."""


@dataclass(frozen=True)
class _Written:
    """Memory as an operator left it."""

    name: str
    tensor: Tensor
    """Dense, as the engine sees it; keeps the memory from being given to another."""
    version: int


@dataclass
class Tape:
    """Operators in the order in which they ran; see ``tape_of``."""

    inputs: Sequence[Tensor]
    nodes: list[Node] = field(default_factory=list)
    written: dict[int, _Written] = field(default_factory=dict)
    """By address."""
    marches: set[MarchRow] = field(default_factory=set)
    is_whole: bool = True
    """Whether everything that was read was on the tape."""

    def note(self, kernel: Kernel, row: MarchRow, operands: Sequence[Tensor], out: Tensor) -> None:
        """Note an operator; operands and output are dense, as the engine sees them."""
        names = [self._name(x) for x in operands]
        if None in names:
            self.is_whole = False
            return
        self.marches.add(row)
        arrays = map_arrays(kernel, lambda path, tensor: tensor.detach().contiguous().numpy())
        self._write(arrays, tuple(filter(None, names)), out)

    def recording(self, outputs: Sequence[Tensor]) -> Recording | None:
        """Return what was noted as one Program, from the inputs to these outputs; None if there is none."""
        engine, found = native_engine(), [self._at(out) for out in outputs]
        unchanged = all(_version(each.tensor) == each.version for each in self.written.values())
        if engine is None or None in found or not (self.is_whole and unchanged and len(self.marches) == 1):
            return None
        names = [each.name for each in found if each is not None]
        try:
            program = Program(
                march=next(iter(self.marches)).march,
                inputs=tuple(
                    ProgramInput(name=_input(i), spec=_spec(x), scale=_SCALE) for i, x in enumerate(self.inputs)
                ),
                nodes=tuple(self.nodes),
                outputs=tuple(ProgramOutput(name=f"output{i}", tensor=name) for i, name in enumerate(names)),
            )
        except (InvalidProgramError, UnsupportedError):  # torch's form takes some shapes that no Program holds
            return None
        plan = Plan(program, sorted(set(names)), *engine)
        return Recording(program, plan, tuple(names), tuple((out.shape, out.stride()) for out in outputs))

    def _at(self, x: Tensor) -> _Written | None:
        """Return the memory that a tensor sees, if all of it and nothing else."""
        found = self.written.get(x.data_ptr())
        same = found is not None and found.tensor.dtype == x.dtype and found.tensor.numel() == x.numel()
        span = 1 + sum((length - 1) * step for length, step in zip(x.shape, x.stride(), strict=True))
        return found if same and span == x.numel() else None

    def _name(self, x: Tensor) -> str | None:
        """Return the tensor of the Program that an operand is, reshaped if need be."""
        found = self._at(x)
        if found is None or found.tensor.shape == x.shape:
            return None if found is None else found.name
        reshaped = Reshape(shape=tuple(x.shape))
        self.nodes.append(_node(reshaped, (found.name,), f"t{len(self.nodes)}"))
        return self.nodes[-1].output

    def _write(self, kernel: Kernel, inputs: tuple[str, ...], out: Tensor) -> None:
        name = f"t{len(self.nodes)}"
        self.nodes.append(_node(kernel, inputs, name))
        self.written[out.data_ptr()] = _Written(name, out, _version(out))


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
    for i, x in enumerate(inputs):
        tape.written[x.data_ptr()] = _Written(_input(i), x, _version(x))
    token = _open.set(tape)
    try:
        yield tape
    finally:
        _open.reset(token)


def noted(kernel: Kernel, row: MarchRow, operands: Sequence[Tensor], out: Tensor) -> None:
    """Note on the open tape, if there is one, what the engine has run."""
    tape = _open.get()
    if tape is not None:
        tape.note(kernel, row, operands, out)


def _input(index: int) -> str:
    return f"input{index}"


def _spec(x: Tensor) -> TensorSpec:
    return TensorSpec(tuple(x.shape), QUANT_DTYPES[x.dtype])


def _node(kernel: Any, inputs: tuple[str, ...], output: str) -> Node:
    return Node(name=output, kernel=kernel, inputs=inputs, output=output, scale=_SCALE)


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version

"""Plan: a Program turned into one object of the library, with the workspaces and outputs of its runs."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from ..kernel import IntArray
from ..program_graph import Node, ProgramGraph, Progress
from .library import create_plan, run_steps
from .settings import engine_threads
from .steps import ON_NUMPY, STEPS, Context
from .storage import ALIGNMENT, ARENA, INPUT, OUTPUT, Placed, Storage, place
from .words import Words

__all__ = ["Plan"]


class Plan:
    """A Program for one library, one instruction set and one set of tensors to hand out.

    It holds copies of all parameters. Threads may run it at the same time; each run has a workspace of its own.
    """

    def __init__(self, program: ProgramGraph, wanted: Collection[str], library: ctypes.CDLL, isa: int) -> None:
        self.storage = place(program, wanted)
        self._library, self._inputs = library, [each.name for each in program.inputs]
        self._specs, self._wanted, self._row = program.specs, tuple(wanted), program.row
        self._workspaces: list[np.ndarray] = []
        words, self._ends = _write(program, self.storage)
        self._handle = create_plan(library, words, isa)
        weakref.finalize(self, library.bpu_plan_destroy, self._handle)

    def run(
        self,
        nodes: tuple[Node, ...],
        inputs: Mapping[str, IntArray],
        progress: Progress | None,
        threads: int | None = None,
    ) -> dict[str, IntArray]:
        """Run all steps in one call, or node by node where somebody watches or numpy takes its turn.

        Args:
            nodes: of the Program.
            inputs: by name.
            progress: called before each node.
            threads: how many; None: as the engine is set.

        Returns:
            The wanted tensors.
        """
        given = {name: np.ascontiguousarray(inputs[name]) for name in self._inputs}
        made = {name: np.empty(self._specs[name].shape, self._specs[name].dtype.numpy) for name in self.storage.outputs}
        sources, targets = _addresses(given.values()), _addresses(made.values())
        threads = threads or engine_threads()
        arrays = {INPUT: list(given.values()), OUTPUT: [made[name] for name in self.storage.outputs]}
        with self._workspace() as workspace:
            begin = 0
            for position, (node, end) in enumerate(zip(nodes, self._ends, strict=True)):
                if progress is not None:
                    progress(node, position, len(nodes))
                on_numpy = type(node.kernel) in ON_NUMPY
                if progress is not None or on_numpy or position == len(nodes) - 1:
                    self._steps(workspace, sources, targets, (begin, end), threads)
                    begin = end
                if on_numpy:
                    *values, out = (
                        _view(self.storage.placed[name], workspace, arrays) for name in (*node.inputs, node.output)
                    )
                    out[...] = node.kernel.run(self._row, *values)
        return {name: self._result(name, given, made) for name in self._wanted}

    def _steps(
        self, workspace: np.ndarray, sources: object, targets: object, steps: tuple[int, int], threads: int
    ) -> None:
        aligned = workspace.ctypes.data + _aligned(workspace)
        run_steps(self._library, self._handle, aligned, sources, targets, steps, threads)

    def _result(self, name: str, given: Mapping[str, IntArray], made: Mapping[str, IntArray]) -> IntArray:
        """Return a tensor: an output's array, or a copy of the input or output that it only renames or reshapes."""
        buffer = self.storage.homes[name].buffer
        if name in made:
            return made[name]
        source = made[buffer] if buffer in made else given[buffer]
        return source.reshape(self._specs[name].shape).copy()

    @contextmanager
    def _workspace(self) -> Iterator[np.ndarray]:
        """Lend a workspace; lists append and pop atomically, so that no lock is needed."""
        try:
            workspace = self._workspaces.pop()
        except IndexError:
            workspace = np.empty(self.storage.arena_bytes + ALIGNMENT, np.uint8)
        try:
            yield workspace
        finally:
            self._workspaces.append(workspace)


def _aligned(workspace: np.ndarray) -> int:
    """Return where in a workspace the arena begins."""
    return int(-workspace.ctypes.data % ALIGNMENT)


def _view(placed: Placed, workspace: np.ndarray, arrays: Mapping[int, Sequence[IntArray]]) -> IntArray:
    """Return a tensor where it lies, as an array."""
    dtype = np.dtype(placed.spec.dtype.numpy)
    strides = [step * dtype.itemsize for step in placed.strides]
    if placed.space == ARENA:
        return np.ndarray(placed.spec.shape, dtype, workspace, _aligned(workspace) + placed.offset, strides)
    return np.ndarray(placed.spec.shape, dtype, arrays[placed.space][placed.index], placed.offset, strides)


def _write(program: ProgramGraph, storage: Storage) -> tuple[Words, list[int]]:
    """Return the words of all steps, and the number of steps up to and including every node."""
    words, ends = Words(), []
    for node in program.nodes:
        inputs = tuple(storage.placed[name] for name in node.inputs)
        if type(node.kernel) in ON_NUMPY:
            ends.append(words.steps)
            continue
        STEPS[type(node.kernel)](Context(words, program.row, inputs, storage.placed[node.output]), node.kernel)
        ends.append(words.steps)
    return words, ends


def _addresses(arrays: Collection[IntArray]) -> object:
    return (ctypes.c_void_p * max(len(arrays), 1))(*(array.ctypes.data for array in arrays))

"""Storage: no two tensors that are needed at the same time overlap, and what can be shared is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bpu_kernels import March, Program, ProgramBuilder, Value
from bpu_kernels.engine.storage import ARENA, Buffer, Placed, pack, place
from bpu_kernels.kernel import Kernel
from bpu_kernels.ops.concat import Concat
from bpu_kernels.ops.elementwise import Relu
from bpu_kernels.ops.layout import Reshape
from bpu_kernels.ops.pool import MaxPool2d
from bpu_kernels.testing import random_program

lives = st.tuples(st.integers(0, 20), st.integers(0, 20)).map(sorted)
buffers = st.lists(st.tuples(st.integers(1, 5000), lives), max_size=30).map(
    lambda drawn: {str(i): Buffer(size, birth, death) for i, (size, (birth, death)) in enumerate(drawn)}
)


@given(buffers)
def test_buffers_that_live_at_the_same_time_do_not_overlap(drawn: dict[str, Buffer]) -> None:
    offsets, total = pack(drawn)
    for a, first in drawn.items():
        assert offsets[a] + first.bytes <= total
        for b, second in drawn.items():
            together = first.birth <= second.death and second.birth <= first.death
            if a < b and together:
                assert offsets[a] + first.bytes <= offsets[b] or offsets[b] + second.bytes <= offsets[a]


@given(buffers)
def test_arena_is_no_larger_than_all_buffers_together(drawn: dict[str, Buffer]) -> None:
    assert pack(drawn)[1] <= sum(-(-each.bytes // 64) * 64 for each in drawn.values())


@given(st.integers(0, 2**32 - 1), st.sampled_from(list(March)))
def test_tensors_that_somebody_still_reads_are_never_written_over(seed: int, march: March) -> None:
    """Replay a random net on a model of its memory: every element remembers which tensor it holds."""
    program, _ = random_program(march, np.random.default_rng(seed))
    wanted = {each.tensor for each in program.outputs}
    storage = place(program, wanted)
    owner: dict[tuple[int, int, int], str] = {}
    inputs = {each.name for each in program.inputs}
    for node in program.nodes:
        for name in node.inputs:
            origins = {owner[cell] for cell in cells(storage.placed[name]) if cell in owner}
            allowed = inputs | holders(program, name)
            assert origins <= allowed
        shared = node.kernel.name in ("concat", "reshape", "reinterpret")
        there = {cell for name in node.inputs for cell in cells(storage.placed[name])} if shared else set()
        for cell in cells(storage.placed[node.output]) - there:
            owner[cell] = node.output
    for name in wanted:
        assert {owner[cell] for cell in cells(storage.placed[name]) if cell in owner} <= inputs | holders(program, name)


def cells(placed: Placed) -> set[tuple[int, int, int]]:
    """Return the bytes of a tensor as (space, index, address)."""
    size = placed.spec.dtype.bits // 8
    steps = (np.arange(n) * s * size for n, s in zip(placed.spec.shape, placed.strides, strict=True))
    grid: Any = sum(np.meshgrid(*steps, np.arange(size), indexing="ij"))
    return {(placed.space, placed.index, placed.offset + int(at)) for at in np.ravel(grid)}


def holders(program: Program, name: str) -> set[str]:
    """Return the tensors whose integers a tensor may consist of: itself, and what it only renames or joins."""
    found, made = {name}, {node.output: node for node in program.nodes}
    if name in made and made[name].kernel.name in ("concat", "reshape", "reinterpret"):
        for each in made[name].inputs:
            found |= holders(program, each)
    return found


def net(*steps: tuple[Kernel, Sequence[int]], shape: tuple[int, ...] = (1, 4, 4, 8)) -> Program:
    """Return a Program of kernels, each with the positions of the values that it reads; the input is 0."""
    builder = ProgramBuilder("bayes")
    values: list[Value] = [builder.input("x", shape, "qint8", 1.0)]
    for number, (kernel, read) in enumerate(steps, 1):
        values.append(builder.add(kernel, *(values[i] for i in read), name=f"n{number}", scale=1.0))
    builder.output(values[-1], "out")
    return builder.build()


POOL = MaxPool2d(kernel=(3, 3), stride=(1, 1), pad=(1, 1))


def test_inputs_of_a_concatenation_are_written_into_it() -> None:
    program = net((Relu(), [0]), (POOL, [0]), (Concat(axis=3), [1, 2]), (POOL, [3]))
    placed = place(program, {"n4"}).placed
    assert [(placed[name].offset, placed[name].pitch) for name in ("n1", "n2", "n3")] == [(0, 16), (8, 16), (0, 16)]


def test_rows_are_joined_without_a_copy_too() -> None:
    program = net((Relu(), [0]), (POOL, [0]), (Concat(axis=1), [1, 2]), (POOL, [3]))
    placed = place(program, {"n4"}).placed
    assert [(placed[name].offset, placed[name].pitch) for name in ("n1", "n2")] == [(0, 8), (4 * 4 * 8, 8)]


def test_elementwise_results_replace_operands_that_nobody_reads_later() -> None:
    program = net((POOL, [0]), (Relu(), [1]), (Relu(), [2]), (POOL, [3]))
    storage = place(program, {"n4"})
    assert {storage.homes[name].buffer for name in ("n1", "n2", "n3")} == {"n1"}
    assert storage.arena_bytes == 4 * 4 * 8


def test_operand_that_is_read_later_is_not_replaced() -> None:
    program = net((POOL, [0]), (Relu(), [1]), (Concat(axis=3), [1, 2]), (POOL, [3]))
    placed = place(program, {"n4"}).placed
    assert placed["n1"].offset != placed["n2"].offset


def test_reshape_takes_no_memory() -> None:
    program = net((POOL, [0]), (Reshape(shape=(1, 2, 8, 8)), [1]), (POOL, [2]))
    storage = place(program, {"n3"})
    assert storage.homes["n2"].buffer == "n1"
    assert storage.placed["n2"].space == ARENA

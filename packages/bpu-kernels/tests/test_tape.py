"""Tapes: what ran one by one gives the same integers in one call of the engine, or there is no recording."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bpu_kernels import KERNELS, March, march_row
from bpu_kernels.dtypes import quant_dtype
from bpu_kernels.fields import map_arrays
from bpu_kernels.ops.concat import Concat
from bpu_kernels.ops.constant import Constant
from bpu_kernels.ops.elementwise import Relu
from bpu_kernels.ops.layout import Pad, Transpose
from bpu_kernels.ops.lut import Lut8
from bpu_kernels.ops.reduce import ReduceExtremum
from bpu_kernels.testing import assert_integers_equal, random_case

torch = pytest.importorskip("torch")
torch_ops = pytest.importorskip("bpu_kernels.torch_ops")

ROW = march_row("bayes")
SEEN_BY_STRIDES = {"reinterpret", "reshape", "slice", "transpose"}
NAMES = sorted({*KERNELS} - {*ROW.refused_kernels} - SEEN_BY_STRIDES - {"constant"})


def table(seed: int) -> Any:
    """Return a table of random integers."""
    return Lut8(table=torch.randint(-128, 128, (256,), dtype=torch.int8, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("name", NAMES)
def test_recording_gives_the_references_integers(name: str) -> None:
    kernel, inputs = random_case(name, March.BAYES, np.random.default_rng(0))
    of_torch = map_arrays(kernel, lambda path, array: torch.from_numpy(array.copy()))
    stored = [torch.from_numpy(x.copy()) for x in inputs]
    first = torch_ops.channel_first(type(kernel), len(inputs))
    with torch_ops.tape_of(stored) as tape:
        y = torch_ops.run(
            of_torch, ROW, *(x.movedim(-1, 1) if is_map else x for x, is_map in zip(stored, first, strict=True))
        )
    recording = tape.recording([y])

    assert recording is not None
    others = [np.roll(x, 1, 0)[::-1].copy() for x in inputs]
    (got,) = recording.run([torch.from_numpy(x) for x in others])
    expected = kernel.run(ROW, *others)
    assert got.stride() == y.stride()
    assert_integers_equal(got.numpy(), np.moveaxis(expected, -1, 1) if first[0] else expected, what=name)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 3, 1, 2)], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("name", ["concat", "pad", "reduce_extremum", "relu"])
def test_memory_of_another_order_is_not_moved_for_operators_that_take_any(name: str, order: tuple[int, ...]) -> None:
    kernels: dict[str, Any] = {
        "concat": Concat(axis=1),
        "pad": Pad(before=(0, 1, 0, 0), after=(0, 0, 2, 1)),
        "reduce_extremum": ReduceExtremum(axis=1),
        "relu": Relu(),
    }
    x, other = (torch.randint(-128, 128, (2, 3, 4, 5), dtype=torch.int8) for _ in range(2))
    with torch_ops.tape_of([x]) as tape:
        seen = x.permute(order)
        y = torch_ops.run(table(1), ROW, torch_ops.run(kernels[name], ROW, *[seen] * (1 + (name == "concat"))))
    recording = tape.recording([y])

    (got,) = recording.run([other])
    moved = other.permute(order).numpy()
    expected = kernels[name].run(ROW, *[moved] * (1 + (name == "concat")))
    assert_integers_equal(got.numpy(), table(1).table.numpy()[expected.astype(int) + 128], what=name)
    assert not any(isinstance(node.kernel, Transpose) for node in recording.program.nodes)


def two_tables(between: Callable[[Any], Any], x: Any) -> Any:
    """Look up twice; return the recording, or None."""
    with torch_ops.tape_of([x]) as tape:
        y = torch_ops.run(table(1), ROW, between(torch_ops.run(table(0), ROW, x)))
    return tape.recording([y])


def noted_copy(x: Any) -> Any:
    """Return a copy in row-major order that the tape is told of."""
    copy = x.transpose(1, 2).reshape(len(x), -1)
    tell(x.transpose(1, 2), copy)
    return copy


def tell(x: Any, copy: Any, move: Any = None) -> None:
    tape = torch_ops.open_tape()
    if tape is not None:
        tape.copied(x, copy, move)


def rolled(x: Any) -> Any:
    """Return elements that were picked along two axes, of which the tape is told."""

    def move(y: Any) -> Any:
        return y.roll((1, -2), (1, 2)).flip(0).repeat(1, 1, 2)

    tell(x, copy := move(x), move)
    return copy


SEEN_ANOTHER_WAY: dict[str, Callable[[Any], Any]] = {
    "itself": lambda x: x,
    "flattened": lambda x: x.flatten(1),
    "an axis more": lambda x: x[:, None],
    "transposed": lambda x: torch_ops.run(Transpose(axes=(1, 0, 2)), ROW, x),
    "a part": lambda x: x[:1],
    "a part of another order": lambda x: x.permute(2, 0, 1)[1:3],
    "every second element": lambda x: x[..., ::2],
    "an axis split": lambda x: x.unflatten(2, (2, 2)).transpose(1, 2),
    "repeated": lambda x: x[:, :1].expand(-1, 5, -1),
    "a copy that was noted": noted_copy,
    "elements picked axis by axis": rolled,
}


def along_a_diagonal(x: Any) -> Any:
    def move(y: Any) -> Any:
        return y[:, [0, 1, 2], [0, 1, 2]]

    tell(x, copy := move(x), move)
    return copy


MADE_BY_TORCH: dict[str, Callable[[Any], Any]] = {
    "picked along two axes at once": along_a_diagonal,
    "a copy": lambda x: x.clone(),
    "written over": lambda x: x.add_(1),
    "of another type": lambda x: x.view(torch.int16).to(torch.int8),
    "overlapping windows": lambda x: x.unfold(2, 2, 1),
}


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("between", SEEN_ANOTHER_WAY)
def test_same_memory_seen_in_another_way_is_recorded(between: str) -> None:
    x, other = (torch.randint(-128, 128, (2, 3, 4), dtype=torch.int8) for _ in range(2))
    recording = two_tables(SEEN_ANOTHER_WAY[between], x)
    (got,) = recording.run([other])
    looked_up = table(0).table[other.long() + 128]
    expected = table(1).table[SEEN_ANOTHER_WAY[between](looked_up).long() + 128]
    assert torch.equal(got, expected)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("between", MADE_BY_TORCH)
def test_memory_that_torch_made_or_wrote_is_not_recorded(between: str) -> None:
    assert two_tables(MADE_BY_TORCH[between], torch.zeros(2, 3, 4, dtype=torch.int8)) is None


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("part", SEEN_ANOTHER_WAY)
def test_output_may_be_part_of_what_was_written(part: str) -> None:
    x, other = (torch.randint(-128, 128, (2, 3, 4), dtype=torch.int8) for _ in range(2))
    with torch_ops.tape_of([x]) as tape:
        whole = torch_ops.run(table(0), ROW, x)
        outputs = [SEEN_ANOTHER_WAY[part](whole), whole]
    got = tape.recording(outputs).run([other])
    looked_up = table(0).table[other.long() + 128]
    assert torch.equal(got[0], SEEN_ANOTHER_WAY[part](looked_up))
    assert torch.equal(got[1], looked_up)


@pytest.mark.usefixtures("engine")
def test_operand_of_one_image_meets_every_image_of_the_batch() -> None:
    kernel, (x, y) = random_case("add", March.BAYES, np.random.default_rng(0))
    x, one = np.concatenate([x, x[::-1]]), y[:1]
    of_torch = map_arrays(kernel, lambda path, array: torch.from_numpy(array.copy()))
    values = torch.from_numpy(one.astype(np.int16).ravel())
    constant = Constant(values=values, shape=one.shape, dtype=quant_dtype(str(one.dtype)))
    stored = torch.from_numpy(x)
    with torch_ops.tape_of([stored]) as tape:
        z = torch_ops.run(of_torch, ROW, stored, torch_ops.run(constant, ROW))
    (got,) = tape.recording([z]).run([torch.from_numpy(x[::-1].copy())])
    assert_integers_equal(got.numpy(), kernel.run(ROW, x[::-1], np.repeat(one, len(x), 0)))


@pytest.mark.usefixtures("engine")
def test_contents_are_told_from_others_by_every_byte() -> None:
    tensors = [torch.arange(5, dtype=torch.int8), torch.ones(3)]
    contents = torch_ops.Contents(tensors)
    assert contents.unchanged()
    for tensor in tensors:
        for i in range(len(tensor)):
            before = tensor[i].clone()
            tensor.data[i] += 1
            assert not contents.unchanged()
            tensor.data[i] = before
            assert contents.unchanged()
    tensors[0].data = tensors[0].clone()
    assert not contents.unchanged()

"""Tapes: what the engine ran one by one gives the same integers in one call, or there is no recording."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bpu_kernels import March, march_row
from bpu_kernels.fields import map_arrays
from bpu_kernels.ops.layout import Transpose
from bpu_kernels.ops.lut import Lut8
from bpu_kernels.testing import assert_integers_equal, random_case

torch = pytest.importorskip("torch")
torch_ops = pytest.importorskip("bpu_kernels.torch_ops")
native = pytest.importorskip("bpu_kernels.torch_ops.native")

ROW = march_row("bayes")
NAMES = sorted(cls.name for cls in native._NATIVE if cls.name not in ROW.refused_kernels)


def table(seed: int) -> Any:
    """Return a table of random integers."""
    return Lut8(table=torch.randint(-128, 128, (256,), dtype=torch.int8, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("name", NAMES)
def test_recording_gives_the_references_integers(name: str) -> None:
    kernel, inputs = random_case(name, March.BAYES, np.random.default_rng(0))
    of_torch = map_arrays(kernel, lambda path, array: torch.from_numpy(array.copy()))
    stored = [torch.from_numpy(x.copy()) for x in inputs]
    first = type(kernel) in torch_ops.CHANNEL_FIRST
    with torch_ops.tape_of(stored) as tape:
        y = torch_ops.run(of_torch, ROW, *(x.movedim(-1, 1) if first else x for x in stored))
    recording = tape.recording([y])

    assert recording is not None
    others = [np.roll(x, 1, 0)[::-1].copy() for x in inputs]
    (got,) = recording.run([torch.from_numpy(x) for x in others])
    expected = kernel.run(ROW, *others)
    assert got.stride() == y.stride()
    assert_integers_equal(got.numpy(), np.moveaxis(expected, -1, 1) if first else expected, what=name)


def two_tables(between: Callable[[Any], Any], x: Any) -> Any:
    """Look up twice; return the recording, or None."""
    with torch_ops.tape_of([x]) as tape:
        y = torch_ops.run(table(1), ROW, between(torch_ops.run(table(0), ROW, x)))
    return tape.recording([y])


SEEN_ANOTHER_WAY: dict[str, Callable[[Any], Any]] = {
    "itself": lambda x: x,
    "flattened": lambda x: x.flatten(1),
    "an axis more": lambda x: x[:, None],
    "transposed": lambda x: torch_ops.run(Transpose(axes=(1, 0, 2)), ROW, x),
}
MADE_BY_TORCH: dict[str, Callable[[Any], Any]] = {
    "a copy": lambda x: x.clone(),
    "a part": lambda x: x[:1],
    "every second element": lambda x: x[..., ::2],
    "written over": lambda x: x.add_(1),
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

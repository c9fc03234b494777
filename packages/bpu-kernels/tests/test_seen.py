"""What torch sees by strides: kernels of a Program make the same elements of the memory, whatever was done to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpu_kernels import march_row
from bpu_kernels.testing import assert_integers_equal

torch = pytest.importorskip("torch")
seen = pytest.importorskip("bpu_kernels.torch_ops.seen").seen


def made(x: Any) -> np.ndarray | None:
    """Return what the kernels make of the memory 0, 1, 2, ... behind a tensor."""
    count = x.untyped_storage().nbytes() // x.element_size()
    kernels = seen(count, x.shape, x.stride(), x.storage_offset())
    if kernels is None:
        return None
    value = np.arange(count, dtype=np.int32)
    for kernel, times in kernels:
        value = kernel.run(march_row("bayes"), *[value] * times)
    return value


def permuted(x: Any, draw: Any) -> Any:
    return x.permute(draw(st.permutations(range(x.dim()))))


def part(x: Any, draw: Any) -> Any:
    axis = draw(st.integers(0, x.dim() - 1))
    start = draw(st.integers(0, x.shape[axis] - 1))
    return x.narrow(axis, start, draw(st.integers(1, x.shape[axis] - start)))


def every_second(x: Any, draw: Any) -> Any:
    return x[(slice(None),) * draw(st.integers(0, x.dim() - 1)) + (slice(None, None, 2),)]


def split(x: Any, draw: Any) -> Any:
    axis = draw(st.integers(0, x.dim() - 1))
    return x.unflatten(axis, (2, -1)) if x.shape[axis] % 2 == 0 else x


def one(x: Any, draw: Any) -> Any:
    axis = draw(st.integers(0, x.dim() - 1))
    return x.select(axis, draw(st.integers(0, x.shape[axis] - 1))) if x.dim() > 1 else x


def repeated(x: Any, draw: Any) -> Any:
    return x.unsqueeze(0).expand(draw(st.integers(1, 3)), *x.shape)


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_views_of_views_are_made_element_by_element(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.sampled_from([1, 2, 4, 6]), min_size=1, max_size=4))
    x = torch.arange(int(np.prod(shape)), dtype=torch.int32).reshape(shape)
    steps = [permuted, part, every_second, split, one, repeated]
    for step in data.draw(st.lists(st.sampled_from(steps), max_size=4)):
        x = step(x, data.draw)
    got = made(x)
    if got is not None:
        assert_integers_equal(got, np.atleast_1d(x.numpy()))


def test_parts_in_any_order_are_made() -> None:
    x = torch.arange(2 * 4 * 6 * 8, dtype=torch.int32).reshape(2, 4, 6, 8)
    for view in (
        x[:, 1:3, ::2, 5:],
        x.permute(3, 0, 2, 1)[1:7],
        x.flatten(1, 2).transpose(0, 2)[::4],
        x.reshape(2, 2, 2, 3, 2, 8).permute(0, 1, 3, 5, 2, 4),
        x[1, 2, 3],
        x[:, :, :1].expand(-1, -1, 3, -1),
        x[0, 0, 0, 0],
    ):
        got = made(view)
        assert got is not None
        assert_integers_equal(got, np.atleast_1d(view.numpy()))


@pytest.mark.parametrize(
    "view",
    [lambda x: x.unfold(0, 3, 1), lambda x: x.reshape(5, 3)[::2, ::2], lambda x: x.as_strided((2, 2), (6, 4))],
    ids=["overlapping", "every second of an odd number", "strides of no axes"],
)
def test_strides_that_do_not_divide_one_another_are_not_taken_apart(view: Any) -> None:
    assert made(view(torch.arange(15, dtype=torch.int32))) is None

"""Calls that say how many tensors they give can be iterated while tracing, without example inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bpu_fx_fusion import TraceError, trace

COUNTED: dict[str, Callable[[Tensor], Any]] = {
    "chunk": lambda x: x.chunk(3, 1),
    "chunk by keyword": lambda x: torch.chunk(x, chunks=3, dim=1),
    "split by sizes": lambda x: x.split([1, 2, 3], 1),  # type: ignore[no-untyped-call]
    "torch.split by sizes": lambda x: torch.split(x, split_size_or_sections=[1, 2, 3], dim=1),
    "split_with_sizes": lambda x: x.split_with_sizes((1, 2, 3), dim=1),
    "tensor_split by number": lambda x: x.tensor_split(3, 1),
    "tensor_split by indices": lambda x: torch.tensor_split(x, (1, 3), dim=1),
}


class Listed(nn.Module):
    """What YOLO's C2f does: the parts of a call become a list that grows."""

    def __init__(self, parts: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, x: Tensor) -> Tensor:
        """Return the doubled parts behind the parts."""
        items = list(self.parts(x))
        items.extend(item * 2 for item in self.parts(x))
        return torch.cat(items, 1)


@pytest.mark.parametrize("parts", COUNTED.values(), ids=COUNTED)
def test_parts_can_be_listed_where_the_call_counts_them(parts: Callable[[Tensor], Any]) -> None:
    model, x = Listed(parts), torch.randn(2, 6, 4)
    assert torch.equal(trace(model)(x), model(x))


@pytest.mark.parametrize("parts", COUNTED.values(), ids=COUNTED)
def test_parts_in_another_order_can_be_joined(parts: Callable[[Tensor], Any]) -> None:
    model, x = Listed(lambda x: parts(x)[::-1]), torch.randn(2, 6, 4)
    assert torch.equal(trace(model)(x), model(x))


@pytest.mark.parametrize("parts", [lambda x: x.split(2, 1), lambda x: x.unbind(1)], ids=["split by size", "unbind"])
def test_a_count_that_depends_on_the_shape_asks_for_examples(parts: Callable[[Tensor], Any]) -> None:
    with pytest.raises(TraceError, match="Pass `example_inputs`"):
        trace(Listed(parts))
    model, x = Listed(parts), torch.randn(2, 6, 4, 4)
    assert torch.equal(trace(model, (x,))(x), model(x))

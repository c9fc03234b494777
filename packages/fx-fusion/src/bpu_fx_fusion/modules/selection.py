"""Float modules that compare and choose: comparisons, where, masked_fill, the largest elements and their places."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

from ..tracing.leaf import register_leaf_module


class Comparison(nn.Module):
    """Compare elementwise with another tensor, or with a number; `Lt`, `Ge` and the others differ in `relation`.

    Args:
        number: What to compare with; None if the call gives a tensor.
    """

    relation: Callable[..., Tensor]

    def __init__(self, number: float | None = None) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return a tensor of truth values."""
        return type(self).relation(x, self.number if y is None else y)

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return "" if self.number is None else f"number={self.number}"


def _comparison(name: str, relation: Callable[..., Tensor], sign: str) -> type[Comparison]:
    attributes = {
        "__doc__": f"Tell where x {sign} y, elementwise.",
        "__module__": __name__,
        "relation": staticmethod(relation),
    }
    return register_leaf_module(type(name, (Comparison,), attributes))


Eq = _comparison("Eq", torch.eq, "==")
Ge = _comparison("Ge", torch.ge, ">=")
Gt = _comparison("Gt", torch.gt, ">")
Le = _comparison("Le", torch.le, "<=")
Lt = _comparison("Lt", torch.lt, "<")
Ne = _comparison("Ne", torch.ne, "!=")

MIRRORED: Final[dict[type[Comparison], type[Comparison]]] = {Eq: Eq, Ne: Ne, Ge: Le, Le: Ge, Gt: Lt, Lt: Gt}
"""What a comparison is with its operands exchanged."""


@register_leaf_module
class Where(nn.Module):
    """Choose from two tensors, as torch.where."""

    def forward(self, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return x where the condition holds, y elsewhere."""
        return torch.where(condition != 0, x, y)


@register_leaf_module
class MaskedFill(nn.Module):
    """Put a number where a mask holds, as Tensor.masked_fill.

    Args:
        value: The number; it may be infinite.
        inverted: Whether the number is put where the mask does not hold.
    """

    def __init__(self, value: float, inverted: bool = False) -> None:
        super().__init__()
        self.value = value
        self.inverted = inverted

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return x with some elements replaced."""
        return x.masked_fill((mask != 0) != self.inverted, self.value)

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return f"value={self.value}, inverted={self.inverted}"


@register_leaf_module
class TopIndices(nn.Module):
    """Return where the largest elements along an axis are, in falling order; of equal ones the first comes first.

    Args:
        k: How many; None for one, without its axis unless `keepdim`: torch.argmax.
        dim: The axis.
        largest: False for the smallest elements, in rising order.
        keepdim: Whether the axis stays, with length 1, where `k` is None.
    """

    def __init__(self, k: int | None = None, dim: int = -1, largest: bool = True, keepdim: bool = False) -> None:
        super().__init__()
        self.k = k
        self.dim = dim
        self.largest = largest
        self.keepdim = keepdim

    def forward(self, x: Tensor) -> Tensor:
        """Return the indices, int64."""
        ordered = torch.sort(x, dim=self.dim, descending=self.largest, stable=True).indices
        if self.k is None:
            chosen = ordered.narrow(self.dim, 0, 1)
            return chosen if self.keepdim else chosen.squeeze(self.dim)
        return ordered.narrow(self.dim, 0, self.k)

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return f"k={self.k}, dim={self.dim}, largest={self.largest}, keepdim={self.keepdim}"


@register_leaf_module
class Gather(nn.Module):
    """Take elements along an axis, each by an index of its own, as torch.gather."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """Return the elements, in the shape of the index."""
        return torch.gather(x, self.dim, index.long())

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return f"dim={self.dim}"

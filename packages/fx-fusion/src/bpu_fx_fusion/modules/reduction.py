"""Float modules that take the largest, the smallest or the length along axes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..tracing.leaf import register_leaf_module


@register_leaf_module
class Amax(nn.Module):
    """Return the largest value along axes, as torch.amax."""

    def __init__(self, dim: int | Sequence[int] = (), keepdim: bool = False) -> None:
        super().__init__()
        self.dim = dim if isinstance(dim, int) else tuple(dim)
        self.keepdim = keepdim

    def forward(self, x: Tensor) -> Tensor:
        """Return the largest values."""
        return torch.amax(x, self.dim, self.keepdim)

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return f"dim={self.dim}, keepdim={self.keepdim}"


@register_leaf_module
class Amin(Amax):
    """Return the smallest value along axes, as torch.amin."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the smallest values."""
        return torch.amin(x, self.dim, self.keepdim)


@register_leaf_module
class VectorNorm(nn.Module):
    """Return the Euclidean length along axes, as torch.linalg.vector_norm."""

    def __init__(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> None:
        super().__init__()
        self.dim = dim
        self.keepdim = keepdim

    def forward(self, x: Tensor) -> Tensor:
        """Return the lengths."""
        y: Tensor = torch.linalg.vector_norm(x, 2.0, self.dim, self.keepdim)
        return y

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return f"dim={self.dim}, keepdim={self.keepdim}"


@register_leaf_module
class Normalize(nn.Module):
    """Divide by the Euclidean length along an axis, as torch.nn.functional.normalize."""

    def __init__(self, dim: int | Sequence[int] = 1, eps: float = 1e-12) -> None:
        super().__init__()
        self.dim = dim
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return vectors of length 1."""
        return F.normalize(x, dim=self.dim, eps=self.eps)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return f"dim={self.dim}, eps={self.eps}"

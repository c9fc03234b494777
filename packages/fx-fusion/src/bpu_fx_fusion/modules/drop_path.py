"""DropPath and DropBlock: drop the branch of a sample, or squares of a map, while training, as float modules."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..tracing.leaf import register_leaf_module


@register_leaf_module
class DropPath(nn.Module):
    """Drop the whole branch of a sample in training, with probability p; "stochastic depth".

    Args:
        p: Probability.
        mode: "row", each sample draws for itself, or "batch", all share one draw.
        scales: Whether what is kept is divided by 1 - p.
    """

    def __init__(self, p: float = 0.0, *, mode: str = "row", scales: bool = True) -> None:
        super().__init__()
        self.p = float(p or 0.0)
        self.mode = mode
        self.scales = scales

    def forward(self, x: Tensor) -> Tensor:
        """Return x, some samples of it zero in training."""
        if not self.training or self.p == 0.0:
            return x
        kept = x.new_empty((x.shape[0] if self.mode == "row" else 1, *(1,) * (x.dim() - 1))).bernoulli_(1.0 - self.p)
        return x * (kept / (1.0 - self.p) if self.scales and self.p < 1.0 else kept)

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return f"p={self.p}"


@register_leaf_module
class DropBlock(nn.Module):
    """Drop squares of every channel in training, and scale what is left by its share (arXiv:1810.12890).

    Args:
        p: Probability that an element is dropped.
        block_size: Side of a square, odd.
        eps: Added to the number of elements that are left.
    """

    def __init__(self, p: float, block_size: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.p = float(p)
        self.block_size = block_size
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return x (N, C, H, W), squares of it zero in training."""
        if not self.training or self.p == 0.0:
            return x
        height, width = x.shape[2:]
        size = min(self.block_size, height, width)
        rows, columns = height - size + 1, width - size + 1
        share = self.p * height * width / (size * size * rows * columns)  # of the squares' corners
        corners = x.new_empty((*x.shape[:2], rows, columns)).bernoulli_(min(share, 1.0))
        kept = 1.0 - F.max_pool2d(F.pad(corners, [size - 1] * 4), size, stride=1)
        return x * kept * (kept.numel() / (kept.sum() + self.eps))

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return f"p={self.p}, block_size={self.block_size}"

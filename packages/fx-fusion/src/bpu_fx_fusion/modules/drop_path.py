"""DropPath: drop the whole branch of a sample while training, as a float module."""

from __future__ import annotations

from torch import Tensor, nn

from ..tracing.leaf import register_leaf_module


@register_leaf_module
class DropPath(nn.Module):
    """Drop the whole branch of a sample in training, with probability p; "stochastic depth".

    Args:
        p: Probability.
        by_row: Whether each sample draws for itself; otherwise all share one draw.
        scales: Whether what is kept is divided by 1 - p.
    """

    def __init__(self, p: float = 0.0, *, by_row: bool = True, scales: bool = True) -> None:
        super().__init__()
        self.p = float(p or 0.0)
        self.by_row = by_row
        self.scales = scales

    def forward(self, x: Tensor) -> Tensor:
        """Return x, some samples of it zero in training."""
        if not self.training or self.p == 0.0:
            return x
        kept = x.new_empty((x.shape[0] if self.by_row else 1, *(1,) * (x.dim() - 1))).bernoulli_(1.0 - self.p)
        return x * (kept / (1.0 - self.p) if self.scales and self.p < 1.0 else kept)

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return f"p={self.p}"

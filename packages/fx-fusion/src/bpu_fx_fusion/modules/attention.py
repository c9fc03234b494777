"""Scaled dot product attention as a float module."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..tracing.leaf import register_leaf_module


@register_leaf_module
class ScaledDotProduct(nn.Module):
    """Attention of queries to keys and values, as torch.nn.functional.scaled_dot_product_attention.

    Args:
        scale: Factor of the products; None means 1 / sqrt(features).
        dropout_p: Share of the attention that is dropped in training.
        boolean: Whether the mask tells where to attend, by what is not 0; otherwise it is as in torch.
    """

    def __init__(self, scale: float | None = None, dropout_p: float = 0.0, boolean: bool = False) -> None:
        super().__init__()
        self.scale = scale
        self.dropout_p = dropout_p
        self.boolean = boolean

    def forward(self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Return softmax(query @ key.T * scale + attn_mask) @ value; shapes (..., L, E), (..., S, E), (..., S, V)."""
        dropout = self.dropout_p if self.training else 0.0
        if self.boolean and attn_mask is not None:
            attn_mask = attn_mask != 0
        return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout, scale=self.scale)

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return f"scale={self.scale}, dropout_p={self.dropout_p}"

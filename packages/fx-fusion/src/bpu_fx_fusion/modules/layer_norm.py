"""LayerNorm with the vendor's options for its table, as a float module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..errors import UsageError
from ..tracing.leaf import register_leaf_module

__all__ = ["LayerNorm"]


@register_leaf_module
class LayerNorm(nn.LayerNorm):
    """torch.nn.LayerNorm that takes ``rsqrt_kwargs`` as well.

    Args:
        normalized_shape: As of torch.nn.LayerNorm, and so are those up to dtype.
        eps: Added to the variance.
        elementwise_affine: Whether there is a weight.
        bias: Whether there is a bias, if there is a weight.
        device: Of the parameters.
        dtype: Of the parameters.
        rsqrt_kwargs: How the table of ``x ** -0.5`` is divided: None or ``{"auto_divide_strategy": "curvature"}``,
            which is how tables are divided here in any case.

    Raises:
        UsageError: rsqrt_kwargs asks for something else.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        rsqrt_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        shape = normalized_shape if isinstance(normalized_shape, int) else list(normalized_shape)
        super().__init__(shape, eps, elementwise_affine, bias, device, dtype)
        if rsqrt_kwargs and dict(rsqrt_kwargs) != {"auto_divide_strategy": "curvature"}:
            raise UsageError(
                f"Expected rsqrt_kwargs={{'auto_divide_strategy': 'curvature'}} or none, got {dict(rsqrt_kwargs)}: "
                "tables are divided by the curvature of their function, with nothing to choose."
            )

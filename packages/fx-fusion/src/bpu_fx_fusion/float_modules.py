"""Float modules for functions that torch.nn has no module for; a traced function becomes one of them.

They are leaves of the tracer and hold no parameters. What is known when the model is traced is given to the
constructor; what is computed at run time (a size taken from another tensor) is given to the call, and wins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import UsageError
from .leaf import register_leaf_module


@register_leaf_module
class Interpolate(nn.Module):
    """Resize, as torch.nn.functional.interpolate.

    Args:
        scale_factor: Output size divided by input size, one number or one per spatial dimension.
        size: Output size, one number or one per spatial dimension; instead of scale_factor.
        mode: "nearest", "bilinear" or any other mode of torch.
        align_corners: As in torch.
        recompute_scale_factor: As in torch.
    """

    def __init__(
        self,
        *,
        scale_factor: float | Sequence[float] | None = None,
        size: int | Sequence[int] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        super().__init__()
        self.scale_factor = scale_factor
        self.size = size
        self.mode = mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(
        self,
        x: Tensor,
        size: int | Sequence[int] | None = None,
        scale_factor: float | Sequence[float] | None = None,
    ) -> Tensor:
        """Return x of shape (N, C, ...) resized in its spatial dimensions."""
        return F.interpolate(
            x,
            size=self.size if size is None else size,
            scale_factor=self.scale_factor if scale_factor is None else scale_factor,
            mode=self.mode,
            align_corners=self.align_corners,
            recompute_scale_factor=self.recompute_scale_factor,
        )

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        shown = ("scale_factor", "size", "mode", "align_corners", "recompute_scale_factor")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in shown if getattr(self, name) is not None)


@register_leaf_module
class Pad(nn.Module):
    """Pad, as torch.nn.functional.pad.

    Args:
        pad: Two numbers per dimension, last dimension first; None if only the call gives it.
        mode: "constant", "reflect", "replicate" or "circular".
        value: Fill value of mode "constant"; None means 0.
    """

    def __init__(self, pad: Sequence[int] | None = None, mode: str = "constant", value: float | None = None) -> None:
        super().__init__()
        self.pad = pad
        self.mode = mode
        self.value = value

    def forward(self, x: Tensor, pad: Sequence[int] | None = None) -> Tensor:
        """Return x with its last dimensions padded."""
        return F.pad(x, self.pad if pad is None else pad, self.mode, self.value)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return f"pad={self.pad}, mode={self.mode!r}, value={self.value}"


@register_leaf_module
class Clamp(nn.Module):
    """Limit every element to [min, max], as torch.clamp; a bound is a number, a tensor (at the call only) or None."""

    def __init__(self, min: float | None = None, max: float | None = None) -> None:
        super().__init__()
        self.min = min
        self.max = max

    def forward(self, x: Tensor, min: Tensor | float | None = None, max: Tensor | float | None = None) -> Tensor:
        """Return x limited elementwise."""
        lower: Any = self.min if min is None else min
        upper: Any = self.max if max is None else max
        return torch.clamp(x, lower, upper)

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return f"min={self.min}, max={self.max}"


@register_leaf_module
class Pow(nn.Module):
    """Raise every element to a fixed power, as torch.pow."""

    def __init__(self, exponent: float) -> None:
        super().__init__()
        self.exponent = exponent

    def forward(self, x: Tensor) -> Tensor:
        """Return x ** exponent."""
        return torch.pow(x, self.exponent)

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return f"exponent={self.exponent}"


@register_leaf_module
class Div(nn.Module):
    """Divide one tensor by another, as torch.div without rounding."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x / y."""
        return torch.div(x, y)


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


@register_leaf_module
class Rsqrt(nn.Module):
    """Return 1 / sqrt(max(x, 0) + eps) of every element."""

    def __init__(self, eps: float = 0.0) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the inverse of the root."""
        return torch.rsqrt(x.clamp(min=0) + self.eps)

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return f"eps={self.eps}"


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


@register_leaf_module
class ChannelShuffle(nn.Module):
    """Put the channels in another order; torch.nn.ChannelShuffle takes a number of groups instead.

    Args:
        shuffle_index: For each channel of the result, the channel that it is; every channel once.

    Raises:
        UsageError: A channel is missing, or there more than once.
    """

    shuffle_index: Tensor

    def __init__(self, shuffle_index: Sequence[int]) -> None:
        super().__init__()
        if isinstance(shuffle_index, int) or sorted(shuffle_index) != [*range(len(shuffle_index))]:
            raise UsageError(
                f"Expected every channel once, such as [0, 2, 1, 3], got {shuffle_index}; for a number of groups use "
                "torch.nn.ChannelShuffle."
            )
        self.register_buffer("shuffle_index", torch.tensor(shuffle_index), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return x of shape (N, C, ...) with its channels in order."""
        return x.index_select(1, self.shuffle_index)

    def extra_repr(self) -> str:
        """Show the order."""
        return f"{self.shuffle_index.tolist()}"


class Unary(nn.Module):
    """Apply one function to every element; `Exp`, `Sqrt` and the others below differ only in `function`."""

    function: Callable[[Tensor], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        """Return the function of every element."""
        return type(self).function(x)


def _unary(name: str, function: Callable[[Tensor], Tensor], formula: str) -> type[Unary]:
    attributes = {
        "__doc__": f"Return {formula} of every element x.",
        "__module__": __name__,
        "function": staticmethod(function),
    }
    return register_leaf_module(type(name, (Unary,), attributes))


Abs = _unary("Abs", torch.abs, "the absolute value")
Acos = _unary("Acos", torch.acos, "arccos(x)")
Acosh = _unary("Acosh", torch.acosh, "arcosh(x)")
Asin = _unary("Asin", torch.asin, "arcsin(x)")
Asinh = _unary("Asinh", torch.asinh, "arsinh(x)")
Atan = _unary("Atan", torch.atan, "arctan(x)")
Atanh = _unary("Atanh", torch.atanh, "artanh(x)")
Ceil = _unary("Ceil", torch.ceil, "the smallest integer >= x")
Cos = _unary("Cos", torch.cos, "cos(x)")
Cosh = _unary("Cosh", torch.cosh, "cosh(x)")
Erf = _unary("Erf", torch.erf, "the error function erf(x)")
Exp = _unary("Exp", torch.exp, "exp(x)")
Floor = _unary("Floor", torch.floor, "the largest integer <= x")
HardLog = _unary("HardLog", torch.log, "the natural logarithm log(x)")
Reciprocal = _unary("Reciprocal", torch.reciprocal, "1 / x")
Sin = _unary("Sin", torch.sin, "sin(x)")
Sinh = _unary("Sinh", torch.sinh, "sinh(x)")
Sqrt = _unary("Sqrt", torch.sqrt, "the square root of x")
Tan = _unary("Tan", torch.tan, "tan(x)")

Selu = nn.SELU
"""The vendor's name of torch's module."""

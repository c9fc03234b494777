"""Float modules that map every element by itself, for functions that torch.nn has no module for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..tracing.leaf import register_leaf_module


@register_leaf_module
class Clamp(nn.Module):
    """Limit every element to [min, max], as torch.clamp; a bound is a number or None, at the call a size as well."""

    def __init__(self, min: float | None = None, max: float | None = None) -> None:
        super().__init__()
        self.min = min
        self.max = max

    def forward(self, x: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
        """Return x limited elementwise."""
        return torch.clamp(x, self.min if min is None else min, self.max if max is None else max)

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

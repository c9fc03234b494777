"""FloatFunctional: arithmetic between tensors as a module, so that fusion and quantization have a place to live."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..tracing.wrap import wrap


@wrap()
class FloatFunctional(nn.Module):
    """Stateless arithmetic whose calls are kept as one node each: `get_attr` of the module, then `call_method`.

    Use one module per call: quantization attaches the statistics of the result to the module. Tensors are float and
    broadcast as in torch unless a method says otherwise.
    """

    def forward(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse: the methods are what is called.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            "FloatFunctional is not called itself: call one of its methods, for example `self.add.add(x, y)`."
        )

    def max(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse: ``maximum`` is meant, or the largest along an axis.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            "FloatFunctional.max says not which is meant: call maximum(x, y) for two tensors, torch.max(x, dim) along "
            "an axis."
        )

    def min(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse: ``minimum`` is meant, or the smallest along an axis.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            "FloatFunctional.min says not which is meant: call minimum(x, y) for two tensors, torch.min(x, dim) along "
            "an axis."
        )

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x + y."""
        return torch.add(x, y)

    def add_scalar(self, x: Tensor, y: float) -> Tensor:
        """Return x + y for a number y."""
        return x + y

    def sub(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x - y."""
        return torch.sub(x, y)

    def mul(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x * y, elementwise."""
        return torch.mul(x, y)

    def mul_scalar(self, x: Tensor, y: float) -> Tensor:
        """Return x * y for a number y."""
        return x * y

    def cat(self, x: Sequence[Tensor], dim: int = 0) -> Tensor:
        """Return the tensors joined along `dim`; the other dimensions must agree."""
        return torch.cat(tuple(x), dim=dim)

    def sum(self, x: Tensor, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
        """Return the sum over `dim` (all dimensions if None)."""
        return torch.sum(x, dim=dim, keepdim=keepdim)

    def mean(self, x: Tensor, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
        """Return the mean over `dim` (all dimensions if None)."""
        return torch.mean(x, dim=dim, keepdim=keepdim)

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the matrix product over the last two dimensions, batched over the others."""
        return torch.matmul(x, y)

    def maximum(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the elementwise maximum."""
        return torch.maximum(x, y)

    def minimum(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the elementwise minimum."""
        return torch.minimum(x, y)

    def add_relu(self, x: Tensor, y: Tensor) -> Tensor:
        """Return max(x + y, 0)."""
        return torch.relu(torch.add(x, y))

"""Correlation: how alike two feature maps are at every displacement within a window, as FlowNet compares two images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError
from ..tracing.leaf import register_leaf_module

__all__ = ["Correlation", "correlation_displacements", "correlation_windows"]


@register_leaf_module
class Correlation(nn.Module):
    """Mean over channels and a patch of ``x * y`` displaced, a channel for each displacement.

    The rule is that of FlowNet (Dosovitskiy et al. 2015, equation 1), with the arguments of MXNet's operator.

    Args:
        kernel_size: Height and width of the patches; odd.
        max_displacement: The largest displacement along an axis, in pixels.
        stride1: Distance of the positions in x.
        stride2: Distance of the displacements.
        pad_size: Zeros around both maps.
        is_multiply: Multiply; False: the absolute difference.

    Raises:
        UsageError: A size that cannot be.
    """

    def __init__(
        self,
        kernel_size: int = 1,
        max_displacement: int = 1,
        stride1: int = 1,
        stride2: int = 1,
        pad_size: int = 0,
        is_multiply: bool = True,
    ) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0 or min(stride1, stride2) < 1 or min(max_displacement, pad_size) < 0:
            raise UsageError(
                "Correlation expects an odd kernel_size, strides of 1 or more, and no negative max_displacement or "
                f"pad_size, got {kernel_size}, {stride1}, {stride2}, {max_displacement}, {pad_size}."
            )
        self.kernel_size = kernel_size
        self.max_displacement = max_displacement
        self.stride1 = stride1
        self.stride2 = stride2
        self.pad_size = pad_size
        self.is_multiply = is_multiply

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return (N, displacements, H', W') of two maps (N, C, H, W); displacements go row by row."""
        x, y = (F.pad(each, (self.pad_size,) * 4) for each in (x, y))
        patches, means = torch.cat(list(correlation_windows(self, x, 0, 0)), 1), []
        for down, right in correlation_displacements(self):
            moved = torch.cat(list(correlation_windows(self, y, down, right)), 1)
            product = patches * moved if self.is_multiply else (patches - moved).abs()
            means.append(product.mean(1, keepdim=True))
        return torch.cat(means, 1)

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return (
            f"kernel_size={self.kernel_size}, max_displacement={self.max_displacement}, stride1={self.stride1}, "
            f"stride2={self.stride2}, pad_size={self.pad_size}, is_multiply={self.is_multiply}"
        )


def correlation_displacements(correlation: Any) -> list[tuple[int, int]]:
    """Return the displacements down and to the right, in the order of the output's channels."""
    reach = correlation.max_displacement // correlation.stride2
    steps = [step * correlation.stride2 for step in range(-reach, reach + 1)]
    return [(down, right) for down in steps for right in steps]


def correlation_windows(correlation: Any, x: Any, down: int, right: int) -> Iterator[Any]:
    """Yield, for every position within a patch, the elements of a padded map at this position of all patches.

    Raises:
        UsageError: The map is smaller than a patch with its displacements.
    """
    border = 2 * correlation.max_displacement + correlation.kernel_size - 1
    lengths = [int(n) - border for n in x.shape[2:]]
    if min(lengths) < 1:
        raise UsageError(f"Correlation expects a padded map larger than {border}, got {tuple(x.shape[2:])}.")
    for row in range(correlation.kernel_size):
        for column in range(correlation.kernel_size):
            top, left = (correlation.max_displacement + n for n in (row + down, column + right))
            step = correlation.stride1
            yield x[:, :, top : top + lengths[0] : step, left : left + lengths[1] : step]

"""ChannelShuffle: the channels of a feature map in any order, as a float module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..tracing.leaf import register_leaf_module


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

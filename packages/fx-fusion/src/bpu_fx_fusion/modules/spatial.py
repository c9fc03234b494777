"""Float modules that resize and pad feature maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ..tracing.leaf import register_leaf_module


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

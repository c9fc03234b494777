"""Layers called as functions on parameters of a module (`F.conv2d(x, self.weight, self.bias)`), as modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from torch import nn

LAYER_PARAMETERS: Final[Mapping[type[nn.Module], tuple[str, ...]]] = {
    nn.Linear: ("weight", "bias"),
    nn.PReLU: ("weight",),
    nn.Conv2d: ("weight", "bias", "stride", "padding", "dilation", "groups"),
    nn.Conv3d: ("weight", "bias", "stride", "padding", "dilation", "groups"),
    nn.ConvTranspose2d: ("weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
}
"""Layer -> arguments of its function after the first, in order."""


def make_layer(
    layer: type[nn.Module], weight: nn.Parameter, bias: nn.Parameter | None, options: Mapping[str, Any]
) -> nn.Module:
    """Return a layer that computes the function with these very parameters; they are shared, not copied.

    Args:
        layer: A key of LAYER_PARAMETERS.
        weight: As the function takes it.
        bias: As the function takes it.
        options: The other arguments of the function that were given.
    """
    made: Any
    if layer is nn.PReLU:
        made = nn.PReLU(weight.numel(), device="meta")
        made.weight = weight
        return made  # type: ignore[no-any-return]
    groups = options.get("groups", 1)
    if layer is nn.Linear:
        sizes = {"in_features": weight.shape[1], "out_features": weight.shape[0]}
    elif layer is nn.ConvTranspose2d:
        sizes = {"in_channels": weight.shape[0], "out_channels": weight.shape[1] * groups}
    else:
        sizes = {"in_channels": weight.shape[1] * groups, "out_channels": weight.shape[0]}
    kernel = {} if layer is nn.Linear else {"kernel_size": tuple(weight.shape[2:])}
    made = layer(**sizes, **kernel, **options, bias=bias is not None, device="meta")
    made.weight, made.bias = weight, bias
    checked: nn.Module = made
    return checked

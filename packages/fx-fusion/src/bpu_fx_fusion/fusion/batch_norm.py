"""Fold a BatchNorm into the convolution or linear layer before it.

With the running mean m, variance v, and gamma, beta of the BatchNorm, per output channel (Jacob et al., "Quantization
and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018, section 3.2; for inference the
two sides compute the same function):

    (1)  s  = gamma / sqrt(v + eps)
    (2)  w' = w * s
    (3)  b' = (b - m) * s + beta

Without affine parameters gamma = 1 and beta = 0; without a bias b = 0.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

from ..errors import InputShapeError
from ..graph.structure import shallow_copy
from ..tracing.leaf import register_leaf_module

CONVS: Final = (nn.Conv2d, nn.ConvTranspose2d, nn.Conv3d, nn.Linear)
"""Layers that fusion starts from."""

BATCH_NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

_NORMALISES: Final[dict[type[nn.Module], tuple[type[nn.Module], ...]]] = {
    nn.BatchNorm1d: (nn.Linear,),
    nn.BatchNorm2d: (nn.Conv2d, nn.ConvTranspose2d),
    nn.BatchNorm3d: (nn.Conv3d,),
    nn.SyncBatchNorm: CONVS,
}


@register_leaf_module
class FoldedLinear(nn.Linear):
    """A Linear that has absorbed a BatchNorm: input (N, in_features), output (N, out_features), nothing else.

    BatchNorm normalises axis 1, Linear's features are the last axis; only for two dimensions is that the same.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return input @ weight.T + bias.

        Raises:
            InputShapeError: The input does not have two dimensions.
        """
        if input.dim() != 2:
            raise InputShapeError(
                f"A Linear with an absorbed BatchNorm takes input of shape (N, features), got {tuple(input.shape)}: "
                "the BatchNorm normalised axis 1, which is not the features here. "
                "Flatten the input, or fuse with absorb_batch_norm=False."
            )
        return super().forward(input)


def fold_refusal(conv: nn.Module, batch_norm: nn.Module) -> str | None:
    """Return why the BatchNorm cannot be folded into, or fused with, the layer before it; None if it can."""
    bn: Any = batch_norm  # torch declares the running statistics as tensors, but they may be None
    conv_name, bn_name = type(conv).__name__, type(bn).__name__
    if type(conv) not in _NORMALISES[type(bn)]:
        if isinstance(conv, nn.Linear):
            return f"{bn_name} normalises axis 1 but Linear's features are the last axis"
        return f"{bn_name} does not take the output of {conv_name}"
    channels: Any = conv.out_features if isinstance(conv, nn.Linear) else conv.out_channels
    if channels != bn.num_features:
        return f"{conv_name} has {channels} outputs but {bn_name} normalises {bn.num_features} features"
    if bn.running_mean is None or bn.running_var is None:
        return f"{bn_name} has no running statistics (track_running_stats=False)"
    return None


def fold_batch_norm(conv: nn.Module, bn: nn.Module) -> nn.Module:
    """Return a new layer that computes `bn(conv(x))` with the running statistics, equations (1) to (3).

    The factors are computed in float64 and the results rounded once to the weight's dtype. Neither argument changes.

    Args:
        conv: Conv2d, ConvTranspose2d, Conv3d or Linear.
        bn: A BatchNorm for which `fold_refusal` has no objection.

    Returns:
        A layer of the conv's type (FoldedLinear for Linear) with its attributes, and new parameters.
    """
    folded: Any = shallow_copy(conv, FoldedLinear if type(conv) is nn.Linear else None)
    with torch.no_grad():
        weight, bias = _folded_parameters(folded, bn)
    trainable = folded.weight.requires_grad
    folded.bias = nn.Parameter(bias.to(folded.weight.dtype), requires_grad=trainable)
    folded.weight = nn.Parameter(weight.to(folded.weight.dtype), requires_grad=trainable)
    return folded  # type: ignore[no-any-return]


def _folded_parameters(conv: Any, bn: Any) -> tuple[Tensor, Tensor]:
    scale = torch.rsqrt(bn.running_var.double() + bn.eps)
    if bn.weight is not None:
        scale = scale * bn.weight.double()
    bias = scale * ((0 if conv.bias is None else conv.bias.double()) - bn.running_mean.double())
    if bn.bias is not None:
        bias = bias + bn.bias.double()
    weight = conv.weight.double()
    if isinstance(conv, nn.ConvTranspose2d):
        # Its weight is (in, out / groups, kh, kw); output channel o belongs to group o // (out / groups).
        grouped = weight.unflatten(0, (conv.groups, -1))
        per_group = scale.view(conv.groups, 1, -1, 1, 1)
        return (grouped * per_group).flatten(0, 1), bias
    return weight * scale.view(-1, *[1] * (weight.dim() - 1)), bias

"""CASES: a small model for every operator and the parameters that matter, with the marches that take it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_fx_fusion import (
    Acos,
    Acosh,
    Asin,
    Asinh,
    Atan,
    Atanh,
    ChannelShuffle,
    Cos,
    Cosh,
    DropPath,
    Erf,
    Exp,
    HardLog,
    Pad,
    Pow,
    Reciprocal,
    Rsqrt,
    Sin,
    Sinh,
    Sqrt,
    Tan,
)

from .case import ALL, BAYES, MAP, PAIR, TOKENS, Calls, OperatorCase, WithResidual, calls, calls_layer
from .selections import SELECTIONS

__all__ = ["CASES"]


def _conv(inputs: int = 8, outputs: int = 12, kernel: int = 3, **options: object) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(inputs, outputs, kernel, **options)  # type: ignore[arg-type]


def _both(states: tuple[Tensor, Tensor], dim: int) -> Tensor:
    """Return two states joined; torch 2.6 traces no cat of a pair that is symbolic as a whole."""
    return torch.cat([states[0], states[1]], dim)


_LINEAR = ((4, 24),)
_VOLUME = ((2, 4, 5, 6, 7),)

_CONVOLUTIONS = {
    "conv2d_1x1": OperatorCase(make=_conv(kernel=1), bits=(8, 16)),
    "conv2d_3x3": OperatorCase(make=_conv(padding=1), bits=(8, 16)),
    "conv2d_3x3_stride2": OperatorCase(make=_conv(padding=1, stride=2), bits=(8, 16)),
    "conv2d_no_bias": OperatorCase(make=_conv(bias=False)),
    "conv2d_5x3_stride_2x1": OperatorCase(make=lambda: nn.Conv2d(8, 12, (5, 3), (2, 1), (2, 1))),
    "conv2d_dilated": OperatorCase(make=_conv(padding=1, dilation=2)),
    "conv2d_grouped": OperatorCase(make=_conv(groups=4, padding=1), bits=(8, 16)),
    "conv2d_depthwise": OperatorCase(make=_conv(8, 8, padding=1, groups=8), bits=(8, 16)),
    "conv2d_depthwise_multiplier": OperatorCase(make=_conv(8, 16, padding=1, groups=8)),
    "conv2d_same": OperatorCase(make=_conv(padding="same")),
    "conv2d_many_taps": OperatorCase(make=_conv(256, 4, padding=1), shapes=((1, 256, 4, 4),), bits=(8, 16)),
    "conv2d_relu": OperatorCase(make=lambda: nn.Sequential(nn.Conv2d(8, 12, 3), nn.ReLU()), bits=(8, 16)),
    "conv2d_relu6": OperatorCase(make=lambda: nn.Sequential(nn.Conv2d(8, 12, 3), nn.ReLU6()), bits=(8, 16)),
    "conv2d_bn_relu": OperatorCase(make=lambda: nn.Sequential(nn.Conv2d(8, 12, 3), nn.BatchNorm2d(12), nn.ReLU())),
    "conv3d": OperatorCase(make=lambda: nn.Conv3d(4, 6, 3, padding=1), shapes=_VOLUME, marches=BAYES),
    "conv3d_uneven_stride": OperatorCase(
        make=lambda: nn.Sequential(nn.Conv3d(4, 6, (1, 3, 3), (1, 2, 2), (0, 1, 1)), nn.ReLU()),
        shapes=_VOLUME,
        marches=BAYES,
    ),
    "conv2d_large_patches": OperatorCase(
        make=lambda: nn.Conv2d(3, 6, 40, 40), shapes=((1, 3, 85, 80),), marches=BAYES, bits=(8, 16)
    ),
    "conv2d_far_dilated": OperatorCase(make=_conv(padding=18, dilation=18), marches=BAYES),
    "conv2d_far_dilated_along_one_axis": OperatorCase(
        make=_conv(padding=(18, 1), dilation=(18, 1)), shapes=((1, 8, 40, 12),), marches=BAYES
    ),
    "conv2d_dilated_stride2": OperatorCase(make=_conv(padding=2, dilation=2, stride=2)),
    "conv1d_bn": OperatorCase(
        make=lambda: nn.Sequential(nn.Conv1d(9, 5, 3, padding=1), nn.BatchNorm1d(5), nn.ReLU()),
        shapes=(TOKENS,),
        marches=BAYES,
    ),
    "max_pool1d": OperatorCase(
        make=lambda: nn.Sequential(nn.MaxPool1d(2), nn.AvgPool1d(2)), shapes=(TOKENS,), marches=BAYES
    ),
    "adaptive_avg_pool1d": OperatorCase(make=lambda: nn.AdaptiveAvgPool1d(1), shapes=(TOKENS,), marches=BAYES),
    "batch_norm1d_alone": OperatorCase(make=lambda: nn.BatchNorm1d(24), shapes=((4, 24),)),
    "batch_norm1d_of_sequence": OperatorCase(make=lambda: nn.BatchNorm1d(9), shapes=(TOKENS,), marches=BAYES),
    "batch_norm3d_alone": OperatorCase(make=lambda: nn.BatchNorm3d(4), shapes=_VOLUME, marches=BAYES),
    "conv3d_bn_relu_stride2": OperatorCase(
        make=lambda: nn.Sequential(nn.Conv3d(4, 6, 3, 2, 1), nn.BatchNorm3d(6), nn.ReLU()),
        shapes=_VOLUME,
        marches=BAYES,
    ),
    "conv_transpose2d_k2s2": OperatorCase(make=lambda: nn.ConvTranspose2d(8, 6, 2, 2)),
    "conv_transpose2d_k4s2p1": OperatorCase(make=lambda: nn.ConvTranspose2d(8, 6, 4, 2, 1)),
    "conv_transpose2d_k3s2p1_out1": OperatorCase(make=lambda: nn.ConvTranspose2d(8, 6, 3, 2, 1, 1)),
    "conv_transpose2d_k4s4p1_cropped": OperatorCase(make=lambda: nn.ConvTranspose2d(8, 6, 4, 4, 1)),
    "conv_transpose2d_k3s2p2_out1_cropped": OperatorCase(make=lambda: nn.ConvTranspose2d(8, 6, 3, 2, 2, 1)),
    "conv_transpose2d_grouped_bn": OperatorCase(
        make=lambda: nn.Sequential(nn.ConvTranspose2d(8, 12, 4, 2, 1, groups=4), nn.BatchNorm2d(12))
    ),
    "conv_transpose2d_depthwise": OperatorCase(make=lambda: nn.ConvTranspose2d(8, 8, 2, 2, groups=8)),
    "linear": OperatorCase(make=lambda: nn.Linear(24, 10), shapes=_LINEAR),
    "linear_bn_relu": OperatorCase(
        make=lambda: nn.Sequential(nn.Linear(24, 10), nn.BatchNorm1d(10), nn.ReLU()), shapes=_LINEAR
    ),
    "linear_of_sequence": OperatorCase(make=lambda: nn.Linear(24, 10), shapes=((2, 7, 24),)),
    "flatten_linear": OperatorCase(make=lambda: nn.Sequential(nn.Flatten(), nn.Linear(960, 10))),
    "batch_norm_alone": OperatorCase(make=lambda: nn.BatchNorm2d(8)),
    "sync_batch_norm_alone": OperatorCase(make=lambda: nn.SyncBatchNorm(8)),
}

_LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = {
    "conv2d": (lambda: nn.Conv2d(8, 8, 3, padding=1), lambda: nn.BatchNorm2d(8), PAIR),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(8, 8, 2, 2), lambda: nn.BatchNorm2d(8), (MAP, (2, 8, 20, 24))),
    "linear": (lambda: nn.Linear(24, 24), lambda: nn.BatchNorm1d(24), ((4, 24), (4, 24))),
    "conv3d": (lambda: nn.Conv3d(4, 4, 3, padding=1), lambda: nn.BatchNorm3d(4), _VOLUME * 2),
}

_RESIDUALS = {
    f"{layer}{'_bn' * bn}_add{'ed' * swapped}{'' if relu is None else '_' + relu.__name__.lower()}": OperatorCase(
        make=lambda make=make, norm=norm, bn=bn, relu=relu, swapped=swapped: WithResidual(  # type: ignore[misc]
            make(), norm() if bn else None, relu() if relu else None, swapped
        ),
        shapes=shapes,
        marches=BAYES if layer == "conv3d" else ALL,
        bits=(8, 16) if layer in ("conv2d", "linear") and not bn else (8,),
    )
    for layer, (make, norm, shapes) in _LAYERS.items()
    for bn in (False, True)
    for swapped in (False, True)
    for relu in (None, nn.ReLU, nn.ReLU6)
}
_RESIDUALS["conv2d_add_1x1_map"] = OperatorCase(
    make=lambda: WithResidual(nn.Conv2d(8, 8, 3), None, nn.ReLU()), shapes=(MAP, (2, 8, 1, 1)), bits=(8, 16)
)

_ELEMENTWISE = {
    "add": OperatorCase(make=calls(lambda x, y: x + y), shapes=PAIR, bits=(8, 16)),
    "add_same": OperatorCase(make=calls(lambda x: x + x), bits=(8, 16)),
    "add_relu": OperatorCase(make=calls(lambda x, y: F.relu(x + y)), shapes=PAIR, bits=(8, 16)),
    "sub": OperatorCase(make=calls(lambda x, y: x - y), shapes=PAIR, bits=(8, 16)),
    "mul": OperatorCase(make=calls(lambda x, y: x * y), shapes=PAIR, bits=(8, 16)),
    "mul_gate": OperatorCase(make=calls(lambda x, y: x * y), shapes=(MAP, (2, 8, 1, 1)), bits=(8, 16)),
    "add_broadcast": OperatorCase(make=calls(lambda x, y: x + y), shapes=(MAP, (2, 8, 1, 1))),
    "mul_of_row_and_column": OperatorCase(
        make=calls(lambda x, y: x * y), shapes=((2, 8, 10, 1), (2, 8, 1, 12)), marches=BAYES, bits=(8, 16)
    ),
    "add_scalar": OperatorCase(make=calls(lambda x: x + 0.7), bits=(8, 16)),
    "mul_scalar": OperatorCase(make=calls(lambda x: x * 1.7), bits=(8, 16)),
    "mul_negative_scalar": OperatorCase(make=calls(lambda x: x * -0.3), bits=(8, 16)),
    "matmul": OperatorCase(make=calls(torch.matmul), shapes=((2, 3, 5, 16), (2, 3, 16, 7)), marches=BAYES),
    "cat_channels": OperatorCase(make=calls(lambda x, y: torch.cat([x, y * 3.0], 1)), shapes=PAIR, bits=(8, 16)),
    "cat_rows": OperatorCase(make=calls(lambda x, y: torch.cat([x, y], dim=2)), shapes=PAIR),
    "mean_map": OperatorCase(make=calls(lambda x: x.mean([2, 3]))),
    "mean_map_keepdim": OperatorCase(make=calls(lambda x: x.mean((2, 3), keepdim=True))),
    "mean_channels": OperatorCase(make=calls(lambda x: x.mean(1, keepdim=True)), marches=BAYES),
    "sum_rows": OperatorCase(make=calls(lambda x: x.sum(dim=2)), marches=BAYES),
    "mean_tokens": OperatorCase(make=calls(lambda x: x.mean(1)), shapes=((2, 9, 16),), marches=BAYES),
    "sum_neighbouring_axes": OperatorCase(make=calls(lambda x: x.sum((1, 2))), marches=BAYES),
    "relu": OperatorCase(make=nn.ReLU, bits=(8, 16)),
    "relu6": OperatorCase(make=lambda: nn.Sequential(Calls(lambda x: x * 4.0), nn.ReLU6()), bits=(8, 16)),
    "abs": OperatorCase(make=calls(torch.abs), bits=(8, 16)),
    "ceil": OperatorCase(make=calls(lambda x: torch.ceil(x * 3.0))),
    "floor": OperatorCase(make=calls(lambda x: torch.floor(x * 3.0))),
    "hardtanh": OperatorCase(make=lambda: nn.Hardtanh(-0.5, 0.75), bits=(8, 16)),
    "clamp": OperatorCase(make=calls(lambda x: x.clamp(-0.25, 0.5)), bits=(8, 16)),
}

_DOMAINS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[nn.Module, ...]]] = {
    "everywhere": (lambda x: x, (Asinh(), Atan(), Cos(), Cosh(), Erf(), Pow(3), Sin(), Sinh())),
    "from -0.9 to 0.9": (lambda x: torch.tanh(x) * 0.9, (Acos(), Asin(), Atanh(), Tan())),
    "above 0.1": (lambda x: torch.sigmoid(x) + 0.1, (HardLog(), Reciprocal(), Rsqrt(1e-5), Sqrt(), Pow(0.5))),
    "above 1.1": (lambda x: torch.sigmoid(x) + 1.1, (Acosh(),)),
}
"""Where functions are defined -> what brings an input there, and the functions."""

_TABLES = {
    f"table_{type(function).__name__.lower()}{function.extra_repr()}": OperatorCase(
        make=lambda into=into, function=function: nn.Sequential(Calls(into), function),  # type: ignore[misc]
        bits=(8, 16),
    )
    for into, functions in _DOMAINS.values()
    for function in functions
} | {
    f"table_{function.__class__.__name__.lower()}": OperatorCase(
        make=lambda function=function: function,  # type: ignore[misc]
        bits=(8, 16),
    )
    for function in (
        nn.Sigmoid(),
        nn.Tanh(),
        nn.SiLU(),
        nn.GELU(),
        nn.ELU(),
        nn.LeakyReLU(0.1),
        nn.Hardsigmoid(),
        nn.Hardswish(),
        nn.Mish(),
        nn.SELU(),
        nn.CELU(),
        nn.Softplus(),
        nn.Softsign(),
        nn.LogSigmoid(),
        Exp(),
    )
}

_MAPS = {
    "avg_pool2d": OperatorCase(make=lambda: nn.AvgPool2d(2)),
    "avg_pool2d_padded": OperatorCase(make=lambda: nn.AvgPool2d(3, 2, 1)),
    "avg_pool2d_padding_not_counted": OperatorCase(
        make=lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False), marches=BAYES
    ),
    "avg_pool2d_cut_short": OperatorCase(make=lambda: nn.AvgPool2d(3, 2, ceil_mode=True), marches=BAYES),
    "avg_pool2d_ceil_without_effect": OperatorCase(make=lambda: nn.AvgPool2d(2, ceil_mode=True)),
    "avg_pool2d_1x1": OperatorCase(make=lambda: nn.AvgPool2d(1, 2)),
    "avg_pool2d_7x7": OperatorCase(make=lambda: nn.AvgPool2d(7, 1)),
    "global_avg_pool": OperatorCase(make=lambda: nn.AdaptiveAvgPool2d(1)),
    "global_avg_pool_7x7": OperatorCase(make=lambda: nn.AdaptiveAvgPool2d(1), shapes=((2, 8, 7, 7),)),
    "adaptive_avg_pool": OperatorCase(make=lambda: nn.AdaptiveAvgPool2d((5, 4))),
    "adaptive_avg_pool_uneven": OperatorCase(make=lambda: nn.AdaptiveAvgPool2d((3, 5))),
    "adaptive_avg_pool_larger": OperatorCase(make=lambda: nn.AdaptiveAvgPool2d((13, None))),
    "max_pool2d": OperatorCase(make=lambda: nn.MaxPool2d(2)),
    "max_pool2d_padded": OperatorCase(make=lambda: nn.MaxPool2d(3, 2, 1)),
    "max_pool2d_ceil": OperatorCase(make=lambda: nn.MaxPool2d(3, 2, ceil_mode=True)),
    "resize_nearest": OperatorCase(make=lambda: nn.Upsample(scale_factor=2)),
    "resize_nearest_size": OperatorCase(make=calls(lambda x: F.interpolate(x, size=(20, 48)))),
    "resize_bilinear": OperatorCase(make=lambda: nn.Upsample(scale_factor=2, mode="bilinear")),
    "resize_bilinear_size": OperatorCase(make=calls(lambda x: F.interpolate(x, size=(7, 19), mode="bilinear"))),
    "resize_aligned": OperatorCase(
        make=lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), marches=BAYES
    ),
    "resize_aligned_bicubic": OperatorCase(
        make=calls(lambda x: F.interpolate(x, size=(7, 19), mode="bicubic", align_corners=True)),
        shapes=(MAP,),
        marches=BAYES,
    ),
    "resize_bicubic": OperatorCase(
        make=calls(lambda x: F.interpolate(x, size=(7, 19), mode="bicubic")), shapes=(MAP,), marches=BAYES
    ),
    "adaptive_max_pool": OperatorCase(make=lambda: nn.AdaptiveMaxPool2d((5, 4))),
    "adaptive_max_pool_uneven": OperatorCase(make=calls(lambda x: F.adaptive_max_pool2d(x, (3, 5))), marches=BAYES),
    "unfold": OperatorCase(make=lambda: nn.Unfold(3, padding=1, stride=2), marches=BAYES, bits=(8, 16)),
    "fold": OperatorCase(make=lambda: nn.Fold((8, 10), 3, padding=1, stride=2), shapes=((2, 36, 20),), marches=BAYES),
    "fold_stride1": OperatorCase(
        make=calls(lambda x: F.fold(x, (6, 7), (3, 2), padding=1)), shapes=((2, 18, 48),), marches=BAYES
    ),
    "zero_pad": OperatorCase(make=lambda: nn.ZeroPad2d((0, 1, 2, 3)), bits=(8, 16)),
    "constant_pad": OperatorCase(make=lambda: nn.ConstantPad2d(1, 0.4)),
    "infinite_pad_max_pool": OperatorCase(
        make=lambda: nn.Sequential(nn.ConstantPad2d(1, float("-inf")), nn.MaxPool2d(3, 2))
    ),
    "replication_pad": OperatorCase(make=lambda: nn.ReplicationPad2d(2), marches=BAYES),
    "reflection_pad": OperatorCase(make=lambda: nn.ReflectionPad2d((1, 2, 3, 0)), marches=BAYES, bits=(8, 16)),
    "circular_pad": OperatorCase(make=calls(lambda x: F.pad(x, (2, 1, 0, 3), mode="circular")), marches=BAYES),
    "negative_pad": OperatorCase(make=lambda: nn.ZeroPad2d((-1, 2, 1, -2))),
    "pad_module": OperatorCase(make=lambda: Pad((1, 1))),
    "drop_path": OperatorCase(make=lambda: DropPath(0.3)),
    "dropout": OperatorCase(make=lambda: nn.Dropout(0.5)),
}

_LAYOUT = {
    "reshape": OperatorCase(make=calls(lambda x: x.reshape(2, 4, 20, 12)), marches=BAYES),
    "flatten": OperatorCase(make=calls(lambda x: torch.flatten(x, 1)), marches=BAYES),
    "flatten_linear_added": OperatorCase(
        make=calls_layer(nn.Linear(240, 6), lambda layer, x, y: layer(torch.flatten(x, 1)) + y),
        shapes=((2, 8, 5, 6), (2, 6)),
    ),
    "permute": OperatorCase(make=calls(lambda x: x.permute(0, 2, 3, 1) * 2.0)),
    "permute_linear_back": OperatorCase(
        make=lambda: nn.Sequential(
            Calls(lambda x: x.permute(0, 2, 3, 1)),
            nn.Linear(8, 6),
            Calls(lambda x: x.permute(0, 3, 1, 2)),
            nn.MaxPool2d(2),
        )
    ),
    "transpose_tokens": OperatorCase(make=calls(lambda x: x.transpose(1, 2) + 0.1), shapes=((2, 9, 16),)),
    "slice": OperatorCase(make=calls(lambda x: x[:, 2:6, ::2, 1:])),
    "select": OperatorCase(make=calls(lambda x: x[:, 3])),
    "chunk_swap": OperatorCase(make=calls(lambda x: torch.cat(torch.chunk(x, 2, 1)[::-1], 1))),
    "split": OperatorCase(make=calls(lambda x: torch.split(x, [3, 5], 1)[1])),
    "stack": OperatorCase(make=calls(lambda x, y: torch.stack([x, y], -1)), shapes=(TOKENS, TOKENS), marches=BAYES),
    "stack_maps": OperatorCase(
        make=calls(lambda x, y: torch.stack([x, y], 1).sum(1)), shapes=(MAP, MAP), marches=BAYES
    ),
    "roll": OperatorCase(make=calls(lambda x: torch.roll(x, (-3, 2), (2, 3))), marches=BAYES),
    "flip": OperatorCase(make=calls(lambda x: x.flip(3)), marches=BAYES),
    "expand": OperatorCase(make=calls(lambda x: x.mean((2, 3), keepdim=True).expand(-1, -1, 3, 5)), marches=BAYES),
    "repeat": OperatorCase(make=calls(lambda x: x.repeat(1, 2, 1, 3)), marches=BAYES),
    "repeat_interleave": OperatorCase(make=calls(lambda x: x.repeat_interleave(2, 1)), marches=BAYES),
    "index_select": OperatorCase(make=calls(lambda x: x[:, [3, 1, 1, 7, 0]]), marches=BAYES),
    "unfold_windows": OperatorCase(make=calls(lambda x: x.unfold(2, 4, 3).unfold(3, 2, 2)), marches=BAYES),
    "pixel_shuffle": OperatorCase(make=lambda: nn.PixelShuffle(2), marches=BAYES),
    "pixel_unshuffle": OperatorCase(make=lambda: nn.PixelUnshuffle(2), marches=BAYES),
    "channel_shuffle": OperatorCase(make=lambda: nn.ChannelShuffle(4), marches=BAYES),
    "channel_shuffle_by_index": OperatorCase(make=lambda: ChannelShuffle([0, 4, 1, 5, 7, 6, 3, 2])),
    "unsqueeze_squeeze": OperatorCase(make=calls(lambda x: x.unsqueeze(2).squeeze(2)), shapes=((2, 9),)),
}

_HEADS = (2, 3, 9, 16)
"""Shape of what heads attend to: N, heads, L, E."""


def _random_affine(norm: nn.Module) -> nn.Module:
    """Return a normalization whose weight and bias are not those of the identity."""
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return norm


_COMPOSITES = {
    "amax_channels": OperatorCase(make=calls(lambda x: torch.amax(x, 1, keepdim=True)), bits=(8, 16)),
    "amin_rows": OperatorCase(make=calls(lambda x: x.amin(dim=(2, 3))), bits=(8, 16)),
    "softmax": OperatorCase(make=lambda: nn.Softmax(-1), shapes=(TOKENS,), marches=BAYES, bits=(8, 16)),
    "softmax_channels": OperatorCase(make=lambda: nn.Softmax(1), marches=BAYES),
    "layer_norm": OperatorCase(
        make=lambda: _random_affine(nn.LayerNorm(16)), shapes=(TOKENS,), marches=BAYES, bits=(8, 16)
    ),
    "layer_norm_of_map": OperatorCase(
        make=calls(lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (8,)).permute(0, 3, 1, 2)), marches=BAYES
    ),
    "layer_norm_over_three_axes": OperatorCase(make=lambda: _random_affine(nn.LayerNorm([8, 10, 12])), marches=BAYES),
    "rms_norm": OperatorCase(make=lambda: _random_affine(nn.RMSNorm(16)), shapes=(TOKENS,), marches=BAYES),
    "group_norm": OperatorCase(make=lambda: _random_affine(nn.GroupNorm(2, 8)), marches=BAYES, bits=(8, 16)),
    "group_norm_tokens": OperatorCase(make=lambda: nn.GroupNorm(3, 9), shapes=(TOKENS,), marches=BAYES),
    "instance_norm_1d": OperatorCase(make=lambda: nn.InstanceNorm1d(9), shapes=(TOKENS,), marches=BAYES),
    "instance_norm_3d": OperatorCase(
        make=lambda: _random_affine(nn.InstanceNorm3d(4, affine=True)), shapes=_VOLUME, marches=BAYES
    ),
    "instance_norm": OperatorCase(make=lambda: nn.InstanceNorm2d(8), marches=BAYES),
    "attention": OperatorCase(
        make=calls(lambda x, y: F.scaled_dot_product_attention(x, y, y)), shapes=(_HEADS, _HEADS), marches=BAYES
    ),
    "attention_masked": OperatorCase(
        make=calls_layer(
            nn.ParameterList([torch.randn(1, 1, 9, 9)]),
            lambda mask, x, y: F.scaled_dot_product_attention(x, y, x, attn_mask=mask[0], scale=0.3),
        ),
        shapes=(_HEADS, _HEADS),
        marches=BAYES,
    ),
    "attention_masked_by_booleans": OperatorCase(
        make=calls_layer(
            nn.ParameterList([nn.Parameter(torch.ones(9, 9).tril().bool(), requires_grad=False)]),
            lambda mask, x, y: F.scaled_dot_product_attention(x, y, x, attn_mask=mask[0]),
        ),
        shapes=(_HEADS, _HEADS),
        marches=BAYES,
    ),
    "attention_masked_by_infinity": OperatorCase(
        make=calls_layer(
            nn.ParameterList([torch.zeros(9, 9).masked_fill(torch.ones(9, 9).triu(1).bool(), -torch.inf)]),
            lambda mask, x, y: F.scaled_dot_product_attention(x, y, x, attn_mask=mask[0]),
        ),
        shapes=(_HEADS, _HEADS),
        marches=BAYES,
    ),
    "attention_masked_by_comparison": OperatorCase(
        make=calls(lambda x, y: F.scaled_dot_product_attention(x, y, x, attn_mask=(x @ y.transpose(-2, -1)) > -2.0)),
        shapes=(_HEADS, _HEADS),
        marches=BAYES,
    ),
    "multihead_attention_by_position": OperatorCase(
        make=calls_layer(
            nn.MultiheadAttention(16, 4, batch_first=True), lambda layer, x: layer(x, x, x, None, False)[0]
        ),
        shapes=(TOKENS,),
        marches=BAYES,
    ),
    "multihead_attention": OperatorCase(
        make=calls_layer(
            nn.MultiheadAttention(16, 4, batch_first=True), lambda layer, x: layer(x, x, x, need_weights=False)[0]
        ),
        shapes=(TOKENS,),
        marches=BAYES,
    ),
    "div": OperatorCase(make=calls(lambda x, y: x / (torch.sigmoid(y) + 0.5)), shapes=PAIR, marches=BAYES),
    "normalize": OperatorCase(make=calls(lambda x: F.normalize(x, dim=-1)), shapes=(TOKENS,), marches=BAYES),
    "vector_norm": OperatorCase(make=calls(lambda x: x.norm(p=2, dim=(1, 2), keepdim=True)), marches=BAYES),
    "glu": OperatorCase(make=lambda: nn.GLU(1), bits=(8, 16)),
    "prelu": OperatorCase(make=lambda: _random_affine(nn.PReLU(8)), bits=(8, 16)),
    "prelu_one_slope": OperatorCase(make=nn.PReLU, shapes=(TOKENS,), marches=BAYES),
    "lstm_cell": OperatorCase(
        make=calls_layer(nn.LSTMCell(16, 12), lambda cell, x, h: _both(cell(x, (h, h * 0.5)), 1)),
        shapes=((2, 16), (2, 12)),
        marches=BAYES,
    ),
    "lstm_cell_by_keyword": OperatorCase(
        make=calls_layer(nn.LSTMCell(16, 12), lambda cell, x, h: cell(x, hx=(h, h * 0.5))[0]),
        shapes=((2, 16), (2, 12)),
        marches=BAYES,
    ),
    "lstm": OperatorCase(
        make=calls_layer(nn.LSTM(16, 6, batch_first=True), lambda lstm, x: lstm(x)[0]), shapes=(TOKENS,), marches=BAYES
    ),
    "lstm_two_layers_both_ways": OperatorCase(
        make=calls_layer(
            nn.LSTM(16, 6, num_layers=2, bidirectional=True, dropout=0.2), lambda lstm, x: _both(lstm(x)[1], 2)
        ),
        shapes=((5, 3, 16),),
        marches=BAYES,
    ),
    "lstm_given_states": OperatorCase(
        make=calls_layer(nn.LSTM(16, 6, bias=False, batch_first=True), lambda lstm, x, h: lstm(x, (h, h * 0.5))[0]),
        shapes=(TOKENS, (1, 2, 6)),
        marches=BAYES,
    ),
    "einsum": OperatorCase(
        make=calls(lambda x, y: torch.einsum("byhwc,bwkc->byhwk", x, y)),
        shapes=((2, 3, 4, 5, 8), (2, 5, 6, 8)),
        marches=BAYES,
    ),
    "avg_pool3d_padding_not_counted": OperatorCase(
        make=lambda: nn.AvgPool3d(3, 2, 1, count_include_pad=False), shapes=_VOLUME, marches=BAYES
    ),
    "avg_pool3d_cut_short": OperatorCase(
        make=lambda: nn.AvgPool3d(3, 2, 1, ceil_mode=True), shapes=_VOLUME, marches=BAYES
    ),
    "max_pool3d": OperatorCase(make=lambda: nn.MaxPool3d(3, 2, 1), shapes=_VOLUME, marches=BAYES),
    "avg_pool3d": OperatorCase(make=lambda: nn.AvgPool3d((1, 2, 3)), shapes=_VOLUME, marches=BAYES),
    "global_avg_pool3d": OperatorCase(make=lambda: nn.AdaptiveAvgPool3d(1), shapes=_VOLUME, marches=BAYES),
    "addcmul": OperatorCase(make=calls(lambda x, y: torch.addcmul(x, x, y)), shapes=PAIR),
    "add_constant": OperatorCase(
        make=calls_layer(nn.ParameterList([torch.randn(1, 9, 16)]), lambda position, x: x + position[0]),
        shapes=(TOKENS,),
        marches=BAYES,
        bits=(8, 16),
    ),
    "mul_constant": OperatorCase(
        make=calls_layer(nn.ParameterList([torch.randn(8, 1, 1)]), lambda scale, x: x * scale[0]), marches=BAYES
    ),
}

CASES: dict[str, OperatorCase] = {
    **_CONVOLUTIONS,
    **_RESIDUALS,
    **_ELEMENTWISE,
    **_TABLES,
    **_MAPS,
    **_LAYOUT,
    **SELECTIONS,
    **_COMPOSITES,
}
"""Name -> case; docs/operators.md and the tests of every form run over all of them."""

"""Cases of operators on feature maps, and of movements; a part of CASES."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from bpu_fx_fusion import (
    ChannelShuffle,
    DropBlock,
    DropPath,
    Pad,
)

from ..case import BAYES, MAP, TOKENS, Calls, OperatorCase, calls, calls_layer

__all__ = ["LAYOUT", "MAPS"]

MAPS = {
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
    "unfold": OperatorCase(
        make=lambda: nn.Unfold(3, padding=1, stride=2), marches=BAYES, bits=(8, 16), open_batch=True
    ),
    "fold": OperatorCase(
        make=lambda: nn.Fold((8, 10), 3, padding=1, stride=2), shapes=((2, 36, 20),), marches=BAYES, open_batch=True
    ),
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
    "drop_block": OperatorCase(make=lambda: DropBlock(0.1, 3)),
    "dropout": OperatorCase(make=lambda: nn.Dropout(0.5)),
}

LAYOUT = {
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
    "view_of_map": OperatorCase(
        make=calls_layer(nn.Conv2d(8, 4, 1), lambda layer, x: layer(x).view(x.size(0), -1)), marches=BAYES
    ),
    "pixel_shuffle": OperatorCase(make=lambda: nn.PixelShuffle(2)),
    "pixel_unshuffle": OperatorCase(make=lambda: nn.PixelUnshuffle(2)),
    "channel_shuffle": OperatorCase(make=lambda: nn.ChannelShuffle(4)),
    "channel_shuffle_by_index": OperatorCase(make=lambda: ChannelShuffle([0, 4, 1, 5, 7, 6, 3, 2])),
    "unsqueeze_squeeze": OperatorCase(make=calls(lambda x: x.unsqueeze(2).squeeze(2)), shapes=((2, 9),)),
}

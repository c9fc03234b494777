"""Cases of convolutions, linear layers and normalizations, with what is fused to them; a part of CASES."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ..case import ALL, BAYES, MAP, PAIR, TOKENS, OperatorCase, WithResidual

__all__ = ["CONVOLUTIONS", "RESIDUALS"]


def _conv(inputs: int = 8, outputs: int = 12, kernel: int = 3, **options: object) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(inputs, outputs, kernel, **options)  # type: ignore[arg-type]


_LINEAR = ((4, 24),)
_VOLUME = ((2, 4, 5, 6, 7),)


CONVOLUTIONS = {
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
        make=lambda: nn.Conv2d(3, 6, 40, 40), shapes=((1, 3, 85, 80),), marches=BAYES, bits=(8, 16), open_batch=True
    ),
    "conv2d_far_dilated": OperatorCase(make=_conv(padding=18, dilation=18), marches=BAYES, open_batch=True),
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
    "batch_norm1d_alone": OperatorCase(make=lambda: nn.BatchNorm1d(24), shapes=((4, 24),), open_batch=True),
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

RESIDUALS = {
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
RESIDUALS["conv2d_add_1x1_map"] = OperatorCase(
    make=lambda: WithResidual(nn.Conv2d(8, 8, 3), None, nn.ReLU()), shapes=(MAP, (2, 8, 1, 1)), bits=(8, 16)
)

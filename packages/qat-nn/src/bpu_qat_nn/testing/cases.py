"""CASES: a small model for every operator and the parameters that matter, with the marches that take it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_fx_fusion import Exp, FloatFunctional, Pad
from bpu_kernels.march import March
from bpu_qat_nn.ops.stubs import DeQuantStub, QuantStub

__all__ = ["CASES", "OperatorCase"]

ALL = tuple(March)
BAYES = (March.BAYES, March.BAYES_E)
MAP = (2, 8, 10, 12)
"""Shape of a feature map: N, C, H, W."""


class Between(nn.Module):
    """A QuantStub, a body, a DeQuantStub."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.quant, self.body, self.dequant = QuantStub(), body, DeQuantStub()

    def forward(self, x: Tensor) -> Tensor:
        """Quantize, run the body, dequantize."""
        y: Tensor = self.dequant(self.body(self.quant(x)))
        return y


class BetweenTwo(Between):
    """The same for a body of two inputs."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__(body)
        self.quant2 = QuantStub()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        """Quantize both, run the body, dequantize."""
        z: Tensor = self.dequant(self.body(self.quant(x), self.quant2(y)))
        return z


class WithResidual(nn.Module):
    """``relu(bn(layer(x)) + y)``, or with the layer as the second operand."""

    def __init__(self, layer: nn.Module, bn: nn.Module | None, relu: nn.Module | None, swapped: bool = False) -> None:
        super().__init__()
        self.layer, self.bn, self.relu, self.swapped = layer, bn, relu, swapped
        self.add = FloatFunctional()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Evaluate."""
        z = self.layer(x)
        if self.bn is not None:
            z = self.bn(z)
        z = self.add.add(y, z) if self.swapped else self.add.add(z, y)
        return z if self.relu is None else self.relu(z)


@dataclass(frozen=True, kw_only=True)
class OperatorCase:
    """A model around one operator."""

    make: Callable[[], nn.Module]
    """Builds the body with random parameters."""
    shapes: tuple[tuple[int, ...], ...] = (MAP,)
    marches: tuple[March, ...] = ALL
    bits: tuple[int, ...] = (8,)
    """Activation bits to test; 16 on Bayes only."""

    def model(self, seed: int = 0) -> nn.Module:
        """Return the float model, with batch normalizations that are not the identity."""
        torch.manual_seed(seed)
        body = self.make()
        for module in body.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
                module.running_mean.normal_()  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias)
        return (Between if len(self.shapes) == 1 else BetweenTwo)(body).eval()


class Calls(nn.Module):
    """A function as a module, so that cases can name it."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        """Call it."""
        return self.function(*inputs)


def _sequence(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*layers)


def _conv(inputs: int = 8, outputs: int = 12, kernel: int = 3, **options: object) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(inputs, outputs, kernel, **options)  # type: ignore[arg-type]


def _calls(function: Callable[..., Tensor]) -> Callable[[], nn.Module]:
    return lambda: Calls(function)


_LINEAR = ((4, 24),)
_PAIR = (MAP, MAP)
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
    "conv3d_bn_relu_stride2": OperatorCase(
        make=lambda: nn.Sequential(nn.Conv3d(4, 6, 3, 2, 1), nn.BatchNorm3d(6), nn.ReLU()),
        shapes=_VOLUME,
        marches=BAYES,
    ),
    "conv_transpose2d_k2s2": OperatorCase(make=lambda: nn.ConvTranspose2d(8, 6, 2, 2)),
    "conv_transpose2d_k4s2p1": OperatorCase(make=lambda: nn.ConvTranspose2d(8, 6, 4, 2, 1)),
    "conv_transpose2d_k3s2p1_out1": OperatorCase(make=lambda: nn.ConvTranspose2d(8, 6, 3, 2, 1, 1)),
    "conv_transpose2d_grouped_bn": OperatorCase(
        make=lambda: nn.Sequential(nn.ConvTranspose2d(8, 12, 4, 2, 1, groups=4), nn.BatchNorm2d(12)), marches=BAYES
    ),
    "conv_transpose2d_depthwise": OperatorCase(make=lambda: nn.ConvTranspose2d(8, 8, 2, 2, groups=8), marches=BAYES),
    "linear": OperatorCase(make=lambda: nn.Linear(24, 10), shapes=_LINEAR),
    "linear_bn_relu": OperatorCase(
        make=lambda: nn.Sequential(nn.Linear(24, 10), nn.BatchNorm1d(10), nn.ReLU()), shapes=_LINEAR
    ),
    "linear_of_sequence": OperatorCase(make=lambda: nn.Linear(24, 10), shapes=((2, 7, 24),)),
    "flatten_linear": OperatorCase(make=lambda: nn.Sequential(nn.Flatten(), nn.Linear(960, 10))),
    "batch_norm_alone": OperatorCase(make=lambda: nn.BatchNorm2d(8)),
}

_LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = {
    "conv2d": (lambda: nn.Conv2d(8, 8, 3, padding=1), lambda: nn.BatchNorm2d(8), _PAIR),
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
    )
    for layer, (make, norm, shapes) in _LAYERS.items()
    for bn in (False, True)
    for swapped in (False, True)
    for relu in (None, nn.ReLU, nn.ReLU6)
}

_ELEMENTWISE = {
    "add": OperatorCase(make=_calls(lambda x, y: x + y), shapes=_PAIR, bits=(8, 16)),
    "add_same": OperatorCase(make=_calls(lambda x: x + x), bits=(8, 16)),
    "add_relu": OperatorCase(make=_calls(lambda x, y: F.relu(x + y)), shapes=_PAIR, bits=(8, 16)),
    "sub": OperatorCase(make=_calls(lambda x, y: x - y), shapes=_PAIR, bits=(8, 16)),
    "mul": OperatorCase(make=_calls(lambda x, y: x * y), shapes=_PAIR, bits=(8, 16)),
    "mul_gate": OperatorCase(make=_calls(lambda x, y: x * y), shapes=(MAP, (2, 8, 1, 1)), bits=(8, 16)),
    "add_broadcast": OperatorCase(make=_calls(lambda x, y: x + y), shapes=(MAP, (2, 8, 1, 1))),
    "add_scalar": OperatorCase(make=_calls(lambda x: x + 0.7), bits=(8, 16)),
    "mul_scalar": OperatorCase(make=_calls(lambda x: x * 1.7), bits=(8, 16)),
    "mul_negative_scalar": OperatorCase(make=_calls(lambda x: x * -0.3), bits=(8, 16)),
    "matmul": OperatorCase(make=_calls(torch.matmul), shapes=((2, 3, 5, 16), (2, 3, 16, 7)), marches=BAYES),
    "cat_channels": OperatorCase(make=_calls(lambda x, y: torch.cat([x, y * 3.0], 1)), shapes=_PAIR, bits=(8, 16)),
    "cat_rows": OperatorCase(make=_calls(lambda x, y: torch.cat([x, y], dim=2)), shapes=_PAIR),
    "mean_map": OperatorCase(make=_calls(lambda x: x.mean([2, 3]))),
    "mean_map_keepdim": OperatorCase(make=_calls(lambda x: x.mean((2, 3), keepdim=True))),
    "mean_channels": OperatorCase(make=_calls(lambda x: x.mean(1, keepdim=True)), marches=BAYES),
    "sum_rows": OperatorCase(make=_calls(lambda x: x.sum(dim=2)), marches=BAYES),
    "mean_tokens": OperatorCase(make=_calls(lambda x: x.mean(1)), shapes=((2, 9, 16),), marches=BAYES),
    "sum_neighbouring_axes": OperatorCase(make=_calls(lambda x: x.sum((1, 2))), marches=BAYES),
    "relu": OperatorCase(make=nn.ReLU, bits=(8, 16)),
    "relu6": OperatorCase(make=lambda: nn.Sequential(Calls(lambda x: x * 4.0), nn.ReLU6()), bits=(8, 16)),
    "hardtanh": OperatorCase(make=lambda: nn.Hardtanh(-0.5, 0.75), bits=(8, 16)),
    "clamp": OperatorCase(make=_calls(lambda x: x.clamp(-0.25, 0.5)), bits=(8, 16)),
}

_TABLES = {
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
    "avg_pool2d_7x7": OperatorCase(make=lambda: nn.AvgPool2d(7, 1)),
    "global_avg_pool": OperatorCase(make=lambda: nn.AdaptiveAvgPool2d(1)),
    "global_avg_pool_7x7": OperatorCase(make=lambda: nn.AdaptiveAvgPool2d(1), shapes=((2, 8, 7, 7),)),
    "adaptive_avg_pool": OperatorCase(make=lambda: nn.AdaptiveAvgPool2d((5, 4))),
    "max_pool2d": OperatorCase(make=lambda: nn.MaxPool2d(2)),
    "max_pool2d_padded": OperatorCase(make=lambda: nn.MaxPool2d(3, 2, 1)),
    "max_pool2d_ceil": OperatorCase(make=lambda: nn.MaxPool2d(3, 2, ceil_mode=True)),
    "resize_nearest": OperatorCase(make=lambda: nn.Upsample(scale_factor=2)),
    "resize_nearest_size": OperatorCase(make=_calls(lambda x: F.interpolate(x, size=(17, 31)))),
    "resize_bilinear": OperatorCase(make=lambda: nn.Upsample(scale_factor=2, mode="bilinear")),
    "resize_bilinear_size": OperatorCase(make=_calls(lambda x: F.interpolate(x, size=(7, 19), mode="bilinear"))),
    "zero_pad": OperatorCase(make=lambda: nn.ZeroPad2d((0, 1, 2, 3)), bits=(8, 16)),
    "constant_pad": OperatorCase(make=lambda: nn.ConstantPad2d(1, 0.4)),
    "replication_pad": OperatorCase(make=lambda: nn.ReplicationPad2d(2)),
    "pad_module": OperatorCase(make=lambda: Pad((1, 1))),
    "dropout": OperatorCase(make=lambda: nn.Dropout(0.5)),
}

_LAYOUT = {
    "reshape": OperatorCase(make=_calls(lambda x: x.reshape(2, 4, 20, 12)), marches=BAYES),
    "flatten": OperatorCase(make=_calls(lambda x: torch.flatten(x, 1)), marches=BAYES),
    "permute": OperatorCase(make=_calls(lambda x: x.permute(0, 2, 3, 1) * 2.0)),
    "permute_linear_back": OperatorCase(
        make=lambda: nn.Sequential(
            Calls(lambda x: x.permute(0, 2, 3, 1)),
            nn.Linear(8, 6),
            Calls(lambda x: x.permute(0, 3, 1, 2)),
            nn.MaxPool2d(2),
        )
    ),
    "transpose_tokens": OperatorCase(make=_calls(lambda x: x.transpose(1, 2) + 0.1), shapes=((2, 9, 16),)),
    "slice": OperatorCase(make=_calls(lambda x: x[:, 2:6, ::2, 1:])),
    "select": OperatorCase(make=_calls(lambda x: x[:, 3])),
    "chunk_swap": OperatorCase(make=_calls(lambda x: torch.cat(torch.chunk(x, 2, 1)[::-1], 1))),
    "split": OperatorCase(make=_calls(lambda x: torch.split(x, [3, 5], 1)[1])),
    "unsqueeze_squeeze": OperatorCase(make=_calls(lambda x: x.unsqueeze(2).squeeze(2)), shapes=((2, 9),)),
}

CASES: dict[str, OperatorCase] = {**_CONVOLUTIONS, **_RESIDUALS, **_ELEMENTWISE, **_TABLES, **_MAPS, **_LAYOUT}
"""Name -> case; docs/operators.md and the tests of every form run over all of them."""

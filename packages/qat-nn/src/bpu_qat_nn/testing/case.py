"""OperatorCase: a small model around one operator, and the modules that such models are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bpu_fx_fusion import FloatFunctional
from bpu_kernels.march import March
from bpu_qat_nn.ops.stubs import DeQuantStub, QuantStub

__all__ = [
    *("ALL", "BAYES", "MAP", "PAIR", "TOKENS"),
    *("Calls", "CallsLayer", "OperatorCase", "WithResidual", "calls", "calls_layer"),
]

ALL = tuple(March)
BAYES = (March.BAYES, March.BAYES_E)
MAP = (2, 8, 10, 12)
"""Shape of a feature map: N, C, H, W."""
PAIR = (MAP, MAP)
TOKENS = (2, 9, 16)
"""Shape of a sequence: N, L, C."""


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
    open_batch: bool = False
    """Whether its export is tested with the batch left open: it reshapes or broadcasts the batch."""

    def model(self, seed: int = 0) -> nn.Module:
        """Return the float model, with batch normalizations that are not the identity."""
        torch.manual_seed(seed)
        body = self.make()
        for module in body.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)):
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


class CallsLayer(Calls):
    """A function of a layer and inputs as a module."""

    def __init__(self, layer: nn.Module, function: Callable[..., Tensor]) -> None:
        super().__init__(function)
        self.layer = layer

    def forward(self, *inputs: Tensor) -> Tensor:
        """Call it."""
        return self.function(self.layer, *inputs)


def calls(function: Callable[..., Tensor]) -> Callable[[], nn.Module]:
    """Return what makes the module that calls a function."""
    return lambda: Calls(function)


def calls_layer(layer: nn.Module, function: Callable[..., Tensor]) -> Callable[[], nn.Module]:
    """Return what makes the module that calls a function with a layer."""
    return lambda: CallsLayer(layer, function)

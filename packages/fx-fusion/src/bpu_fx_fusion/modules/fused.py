"""The fused float modules: a convolution or linear layer with what follows it, as one module.

The children are named `conv` (also where it is a Linear), `bn` (only if the BatchNorm is kept) and `relu`. Class names
follow the vendor's: ConvReLU2d, ConvAddReLU62d, ConvTransposeAdd2d, LinearReLU, ..., and ConvBNReLU2d with a BatchNorm.
"""

from __future__ import annotations

from itertools import product
from typing import Final

from torch import Tensor, nn

from ..tracing.leaf import register_leaf_module


class FusedModule(nn.Module):
    """Base of all fused modules.

    Args:
        conv: The layer the chain starts with.
        bn: The BatchNorm, if it is kept.
        relu: The activation, if there is one.
    """

    conv: nn.Module

    def __init__(self, conv: nn.Module, bn: nn.Module | None = None, relu: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = conv
        if bn is not None:
            self.bn = bn
        if relu is not None:
            self.relu = relu

    def _convolve(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return self.bn(y) if "bn" in self._modules else y

    def _activate(self, y: Tensor) -> Tensor:
        return self.relu(y) if "relu" in self._modules else y


class FusedConv(FusedModule):
    """A fused chain without an addition: relu(bn(conv(x)))."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the chain's result for the convolution's input x."""
        return self._activate(self._convolve(x))


class FusedConvAdd(FusedModule):
    """A fused chain with an addition: relu(bn(conv(x)) + residual)."""

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return the chain's result for the convolution's input x and the addition's other operand."""
        return self._activate(self._convolve(x) + residual)

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return the same: in eager models the chain stands where the FloatFunctional of the addition was."""
        y: Tensor = self(x, residual)
        return y


_CONVS: Final[dict[type[nn.Module], tuple[str, str]]] = {
    nn.Conv2d: ("Conv", "2d"),
    nn.ConvTranspose2d: ("ConvTranspose", "2d"),
    nn.Conv3d: ("Conv", "3d"),
    nn.Linear: ("Linear", ""),
}

RELUS: Final = (nn.ReLU, nn.ReLU6)
"""Activations that a fused module may end with."""


FUSED_CLASSES: Final[dict[tuple[type[nn.Module], bool, bool, type[nn.Module] | None], type[FusedModule]]] = {}
"""(type of the layer, BatchNorm kept?, addition?, type of the activation or None) -> the fused class."""


def _family(conv: type[nn.Module], *, bn: bool) -> tuple[type[FusedModule], ...]:
    """Make the classes of one layer type: without and then with addition, each plain, with ReLU and with ReLU6."""
    chains = [(add, relu) for add, relu in product((False, True), (None, *RELUS)) if bn or add or relu]
    for add, relu in chains:
        FUSED_CLASSES[conv, bn, add, relu] = _make_class(conv, bn, add, relu)
    return tuple(FUSED_CLASSES[conv, bn, add, relu] for add, relu in chains)


def _make_class(conv: type[nn.Module], bn: bool, add: bool, relu: type[nn.Module] | None) -> type[FusedModule]:
    prefix, suffix = _CONVS[conv]
    parts = [conv.__name__, *["BatchNorm"] * bn, *["addition"] * add, *([relu.__name__] if relu else [])]
    attributes = {"__doc__": f"{' + '.join(parts)} as one module.", "__module__": __name__}
    name = f"{prefix}{'BN' * bn}{'Add' * add}{relu.__name__ if relu else ''}{suffix}"
    return register_leaf_module(type(name, (FusedConvAdd if add else FusedConv,), attributes))


ConvReLU2d, ConvReLU62d, ConvAdd2d, ConvAddReLU2d, ConvAddReLU62d = _family(nn.Conv2d, bn=False)
ConvBN2d, ConvBNReLU2d, ConvBNReLU62d, ConvBNAdd2d, ConvBNAddReLU2d, ConvBNAddReLU62d = _family(nn.Conv2d, bn=True)
ConvReLU3d, ConvReLU63d, ConvAdd3d, ConvAddReLU3d, ConvAddReLU63d = _family(nn.Conv3d, bn=False)
ConvBN3d, ConvBNReLU3d, ConvBNReLU63d, ConvBNAdd3d, ConvBNAddReLU3d, ConvBNAddReLU63d = _family(nn.Conv3d, bn=True)
LinearReLU, LinearReLU6, LinearAdd, LinearAddReLU, LinearAddReLU6 = _family(nn.Linear, bn=False)
LinearBN, LinearBNReLU, LinearBNReLU6, LinearBNAdd, LinearBNAddReLU, LinearBNAddReLU6 = _family(nn.Linear, bn=True)
(
    ConvTransposeReLU2d,
    ConvTransposeReLU62d,
    ConvTransposeAdd2d,
    ConvTransposeAddReLU2d,
    ConvTransposeAddReLU62d,
) = _family(nn.ConvTranspose2d, bn=False)
(
    ConvTransposeBN2d,
    ConvTransposeBNReLU2d,
    ConvTransposeBNReLU62d,
    ConvTransposeBNAdd2d,
    ConvTransposeBNAddReLU2d,
    ConvTransposeBNAddReLU62d,
) = _family(nn.ConvTranspose2d, bn=True)


def fused_class(
    conv: type[nn.Module], *, bn: bool = False, add: bool = False, relu: type[nn.Module] | None = None
) -> type[FusedModule]:
    """Return the class of a fused chain.

    Args:
        conv: nn.Conv2d, nn.ConvTranspose2d, nn.Conv3d or nn.Linear.
        bn: Whether the BatchNorm is kept as a child.
        add: Whether there is an addition.
        relu: nn.ReLU, nn.ReLU6 or None.
    """
    return FUSED_CLASSES[conv, bn, add, relu]

"""Mixed 8 and 16 bits on Bayes: what prepare accepts agrees, and values have the type that they say they have."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_fx_fusion import FloatFunctional
from bpu_qat_nn import PrepareError, QuantStub, prepare_qat_fx
from bpu_qat_nn.testing import assert_exact, calibrate, real_inputs
from bpu_qat_nn.testing.stages import QCONFIGS

SHAPE = (2, 4, 6, 6)


class Pair(nn.Module):
    """Two stubs and an operator between them; no DeQuantStub, so that the types can be looked at."""

    def __init__(self, operator: nn.Module | Callable[..., Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.add = QuantStub(), QuantStub(), FloatFunctional()
        self.layer = operator if isinstance(operator, nn.Module) else nn.Identity()
        self.function = None if isinstance(operator, nn.Module) else operator

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = self.first(x), self.second(y)
        if self.function is not None:
            return self.function(self, x, y)
        z: Tensor = self.layer(x)
        return z


OPERATORS: dict[str, Callable[[], nn.Module | Callable[..., Tensor]]] = {
    "conv": lambda: nn.Conv2d(4, 4, 3, padding=1),
    "conv of 288 taps": lambda: nn.Sequential(nn.Conv2d(4, 32, 1), nn.Conv2d(32, 4, 3)),
    "depthwise": lambda: nn.Conv2d(4, 4, 3, groups=4),
    "dilated": lambda: nn.Conv2d(4, 4, 3, dilation=2),
    "transposed": lambda: nn.ConvTranspose2d(4, 4, 2, 2),
    "linear": lambda: nn.Linear(6, 4),
    "batch norm": lambda: nn.BatchNorm2d(4).eval(),
    "residual": lambda: lambda m, x, y: F.relu(m.add.add(x * 0.5, y)),
    "add": lambda: lambda m, x, y: m.add.add(x, y),
    "add relu": lambda: lambda m, x, y: m.add.add_relu(x, y),
    "sub": lambda: lambda m, x, y: m.add.sub(x, y),
    "mul": lambda: lambda m, x, y: m.add.mul(x, y),
    "cat": lambda: lambda m, x, y: m.add.cat([x, y], 1),
    "matmul": lambda: lambda m, x, y: m.add.matmul(x, y),
    "mean": lambda: lambda m, x, y: m.add.mean(x, (2, 3)),
    "sum of channels": lambda: lambda m, x, y: m.add.sum(x, 1),
    "add scalar": lambda: lambda m, x, y: m.add.add_scalar(x, 0.3),
    "mul scalar": lambda: lambda m, x, y: m.add.mul_scalar(x, -0.3),
    "mul by zero": lambda: lambda m, x, y: m.add.mul_scalar(x, 0.0),
    "sigmoid": lambda: nn.Sigmoid(),
    "gelu": lambda: nn.GELU(),
    "relu": lambda: nn.ReLU(),
    "hardtanh": lambda: nn.Hardtanh(-0.5, 0.25),
    "max pool": lambda: nn.MaxPool2d(2),
    "average pool": lambda: nn.AvgPool2d(2),
    "global pool": lambda: nn.AdaptiveAvgPool2d(1),
    "upsample": lambda: nn.Upsample(scale_factor=2),
    "bilinear": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    "pad": lambda: nn.ConstantPad2d(1, 0.3),
    "dropout": lambda: nn.Dropout(),
    "reshape": lambda: lambda m, x, y: x.flatten(2).permute(0, 2, 1),
}

TWO_OPERANDS = {"residual", "add", "add relu", "sub", "mul", "cat", "matmul"}
CASES = [
    pytest.param(name, bits, id=f"{name}-{'-'.join(map(str, bits))}")
    for name in OPERATORS
    for bits in product((8, 16), repeat=3)
    if name in TWO_OPERANDS or bits[1] == 8
]
INT8_ONLY = {
    *("transposed", "matmul", "max pool", "average pool", "global pool", "upsample"),
    *("bilinear", "dilated"),
}
"""Operators that take no int16; those with a scale of their own give none either."""
KEEPS_TYPE = {"max pool", "upsample", "bilinear"}


@pytest.mark.parametrize(("name", "bits"), CASES)
def test_accepted_types_agree_and_are_what_they_say(name: str, bits: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    first, second, out = bits
    qconfig_dict = {"": QCONFIGS[out], "module_name": [("first", QCONFIGS[first]), ("second", QCONFIGS[second])]}
    model = Pair(OPERATORS[name]()).eval()
    counting = {first, *([second] if name in TWO_OPERANDS else []), *([out] if name not in KEEPS_TYPE else [])}
    if name in INT8_ONLY and 16 in counting:
        with pytest.raises(PrepareError, match="qint16"):
            prepare_qat_fx(model, qconfig_dict)
        return
    observed = prepare_qat_fx(model, qconfig_dict)
    shapes = (SHAPE, SHAPE)
    calibrate(observed, shapes)
    inputs = real_inputs(shapes, seed=9)
    converted = assert_exact(observed, inputs)
    for values in (converted(*inputs), observed(*(x.requires_grad_() for x in inputs))):
        assert values.int_repr().dtype == getattr(torch, f"int{values.dtype.bits}")
    values.dequantize().square().sum().backward()
    assert all(x.grad is None or torch.isfinite(x.grad).all() for x in inputs)

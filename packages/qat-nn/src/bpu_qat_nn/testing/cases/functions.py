"""Cases of arithmetic and of functions of every element; a part of CASES."""

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
    Cos,
    Cosh,
    Erf,
    Exp,
    HardLog,
    Pow,
    Reciprocal,
    Rsqrt,
    Sin,
    Sinh,
    Sqrt,
    Tan,
)

from ..case import BAYES, MAP, PAIR, Calls, OperatorCase, calls

__all__ = ["ELEMENTWISE", "TABLES"]

ELEMENTWISE = {
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
    "matmul": OperatorCase(
        make=calls(torch.matmul), shapes=((2, 3, 5, 16), (2, 3, 16, 7)), marches=BAYES, open_batch=True
    ),
    "cat_channels": OperatorCase(make=calls(lambda x, y: torch.cat([x, y * 3.0], 1)), shapes=PAIR, bits=(8, 16)),
    "cat_rows": OperatorCase(make=calls(lambda x, y: torch.cat([x, y], dim=2)), shapes=PAIR),
    "mean_map": OperatorCase(make=calls(lambda x: x.mean([2, 3]))),
    "mean_map_keepdim": OperatorCase(make=calls(lambda x: x.mean((2, 3), keepdim=True))),
    "mean_channels": OperatorCase(make=calls(lambda x: x.mean(1, keepdim=True)), open_batch=True),
    "sum_channels": OperatorCase(make=calls(lambda x: x.sum(1, keepdim=True))),
    "sum_rows": OperatorCase(make=calls(lambda x: x.sum(dim=2)), marches=BAYES),
    "mean_tokens": OperatorCase(make=calls(lambda x: x.mean(1)), shapes=((2, 9, 16),), marches=BAYES),
    "sum_neighbouring_axes": OperatorCase(make=calls(lambda x: x.sum((1, 2))), marches=BAYES, open_batch=True),
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

TABLES = {
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

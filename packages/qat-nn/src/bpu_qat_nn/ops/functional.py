"""FloatFunctional: arithmetic between tensors as a module, under QAT and converted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bpu_fx_fusion import FloatFunctional
from bpu_kernels.dtypes import QuantDType, qint8
from bpu_kernels.march import MarchRow

from ..errors import InputError
from ..op import Operator, OpRow, Output, type_problems
from ..qat_module import QATModule
from ..qtensor import QTensor
from ..quantized_module import QuantizedModule
from . import arithmetic
from .clip import clip_steps
from .reduction import EVERYWHERE, axes_of, expect_reducible, reduce_axes

__all__ = ["METHODS", "ROWS", "SCALELESS", "Method"]


def _any_activation(
    row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None], given: Mapping[str, Any]
) -> list[str]:
    return type_problems(inputs, row.activations)


def _matmul_limits(
    row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None], given: Mapping[str, Any]
) -> list[str]:
    found = ["matrix products of two activations"] if "matmul" in row.refused_kernels else []
    return [*found, *_int8_only(dtype, inputs)]


def _reduction_limits(
    row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None], given: Mapping[str, Any]
) -> list[str]:
    found, dim = type_problems([dtype, *inputs], row.activations), given.get("dim")
    known = isinstance(dim, int) or (isinstance(dim, (tuple, list)) and all(isinstance(axis, int) for axis in dim))
    if "sum" in row.refused_kernels and known and axes_of(dim, 4) not in EVERYWHERE:
        found.append(f"sum or mean over {dim} (allowed: height and width, (2, 3), or channels, 1)")
    return found


def _int8_only(dtype: QuantDType, inputs: Sequence[QuantDType | None]) -> list[str]:
    found = type_problems(inputs, [qint8])
    return found if dtype is qint8 else [*found, f"output type {dtype} (allowed: {qint8})"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One method of FloatFunctional: its meaning on real values, on integers, and its kernels."""

    real: Callable[..., Tensor]
    steps: Callable[..., QTensor]
    """Takes the operator, the Output, the inputs, and what else the call gives."""
    kernels: tuple[str, ...]
    limits: Callable[[MarchRow, QuantDType, Sequence[QuantDType | None], Mapping[str, Any]], list[str]] = (
        _any_activation
    )
    """Takes the march, the type of the output, those of the inputs, and what else the call gives."""


def _add_relu(operator: Operator, out: Output, x: QTensor, y: QTensor) -> QTensor:
    return clip_steps(arithmetic.add(operator, out, x, y), 0.0, math.inf, operator)


def _sum(operator: Operator, out: Output, x: QTensor, *, dim: Any = None, keepdim: bool = False) -> QTensor:
    return reduce_axes(operator, out, x, dim=dim, keepdim=keepdim, divides=False)


def _mean(operator: Operator, out: Output, x: QTensor, *, dim: Any = None, keepdim: bool = False) -> QTensor:
    return reduce_axes(operator, out, x, dim=dim, keepdim=keepdim, divides=True)


_SUMS = ("add", "add_scaled", "rescale", "resize_bilinear")
_POOLS = ("sum", "global_avg_pool2d", "avg_pool2d", "conv2d", "rescale", "lut8")

_CHOICES = ("extremum", "rescale", "lut8", "resize_bilinear")

METHODS: dict[str, Method] = {
    "add": Method(real=torch.add, steps=arithmetic.add, kernels=_SUMS),
    "add_relu": Method(real=lambda x, y: (x + y).relu(), steps=_add_relu, kernels=(*_SUMS, "relu", "lut16")),
    "sub": Method(real=torch.sub, steps=arithmetic.sub, kernels=(*_SUMS, "lut8")),
    "mul": Method(real=torch.mul, steps=arithmetic.mul, kernels=("mul", "rescale", "resize_bilinear")),
    "matmul": Method(real=torch.matmul, steps=arithmetic.matmul, kernels=("matmul",), limits=_matmul_limits),
    "maximum": Method(real=torch.maximum, steps=arithmetic.larger, kernels=_CHOICES),
    "minimum": Method(real=torch.minimum, steps=arithmetic.smaller, kernels=_CHOICES),
    "sum": Method(real=torch.sum, steps=_sum, kernels=_POOLS, limits=_reduction_limits),
    "mean": Method(real=torch.mean, steps=_mean, kernels=_POOLS, limits=_reduction_limits),
}
"""Methods whose operands are all tensors and whose result has a scale of its own."""

SCALELESS = ("mul_scalar",)
"""Methods whose result has no scale of its own: only the input's scale changes, so nothing is observed."""

_OTHERS: dict[str, tuple[str, ...]] = {
    "add_scalar": ("lut8", "lut16", "rescale"),
    "mul_scalar": ("reinterpret", "lut8", "lut16"),
    "cat": ("concat", "rescale", "lut8"),
}
"""The methods with other signatures -> their kernels."""


class _FunctionalMethods(Operator):
    """The methods of FloatFunctional in terms of one, ``_call``."""

    def _call(self, name: str, *inputs: QTensor, **given: Any) -> QTensor:
        raise NotImplementedError

    def add(self, x: QTensor, y: QTensor) -> QTensor:
        """Return x + y."""
        return self._call("add", x, y)

    def add_relu(self, x: QTensor, y: QTensor) -> QTensor:
        """Return max(x + y, 0)."""
        return self._call("add_relu", x, y)

    def sub(self, x: QTensor, y: QTensor) -> QTensor:
        """Return x - y."""
        return self._call("sub", x, y)

    def mul(self, x: QTensor, y: QTensor) -> QTensor:
        """Return x * y, elementwise."""
        return self._call("mul", x, y)

    def matmul(self, x: QTensor, y: QTensor) -> QTensor:
        """Return the matrix product over the last two axes."""
        return self._call("matmul", x, y)

    def maximum(self, x: QTensor, y: QTensor) -> QTensor:
        """Return the larger of two elements."""
        return self._call("maximum", x, y)

    def minimum(self, x: QTensor, y: QTensor) -> QTensor:
        """Return the smaller of two elements."""
        return self._call("minimum", x, y)

    def sum(self, x: QTensor, dim: Any = None, keepdim: bool = False) -> QTensor:
        """Return the sum over axes."""
        expect_reducible(self.label, self.row, x.shape, dim)
        return self._call("sum", x, dim=dim, keepdim=keepdim)

    def mean(self, x: QTensor, dim: Any = None, keepdim: bool = False) -> QTensor:
        """Return the mean over axes."""
        expect_reducible(self.label, self.row, x.shape, dim)
        return self._call("mean", x, dim=dim, keepdim=keepdim)

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """Refuse: the methods are what is called."""
        raise InputError("FloatFunctional is not called itself: call one of its methods, e.g. self.add.add(x, y)")


class QFunctional(_FunctionalMethods, QuantizedModule):
    """Arithmetic between tensors of integers."""

    def _call(self, name: str, *inputs: QTensor, **given: Any) -> QTensor:
        return METHODS[name].steps(self, Output(self.scale, self.dtype), *inputs, **given)

    def add_scalar(self, x: QTensor, y: float) -> QTensor:
        """Return x + y for a number y."""
        return arithmetic.add_scalar(self, Output(self.scale, self.dtype), x, float(y))

    def mul_scalar(self, x: QTensor, y: float) -> QTensor:
        """Return x * y for a number y: only the scale changes."""
        return arithmetic.mul_scalar(self, x, float(y))

    def cat(self, x: Sequence[QTensor], dim: int = 0) -> QTensor:
        """Return the tensors joined along an axis."""
        return arithmetic.concat(self, Output(self.scale, self.dtype), *x, dim=dim)

    def _get_name(self) -> str:
        return "QFunctional"


class QATFloatFunctional(_FunctionalMethods, QATModule):
    """Arithmetic between tensors under quantization-aware training; one scale, so one call in a forward pass."""

    quantized = QFunctional

    def _call(self, name: str, *inputs: QTensor, **given: Any) -> QTensor:
        method = METHODS[name]
        return self.compute(partial(method.real, **given), partial(method.steps, self, **given), inputs)

    def add_scalar(self, x: QTensor, y: float) -> QTensor:
        """Return x + y for a number y."""
        return self.compute(
            lambda values: values + y, lambda out, steps: arithmetic.add_scalar(self, out, steps, float(y)), (x,)
        )

    def mul_scalar(self, x: QTensor, y: float) -> QTensor:
        """Return x * y for a number y: only the scale changes, so nothing is observed."""
        self.expect_quantized((x,))
        if not x.on_grid:
            return QTensor(x.dequantize() * y, x.scale * abs(y) if y else x.scale, None, x.dtype, on_grid=False)
        with torch.no_grad():
            steps = arithmetic.mul_scalar(self, x.as_steps(), float(y))
        needs_grad = torch.is_grad_enabled() and x.requires_grad
        return self.replaced(x.dequantize() * y if needs_grad else None, steps)

    def cat(self, x: Sequence[QTensor], dim: int = 0) -> QTensor:
        """Return the tensors joined along an axis."""
        return self.compute(
            lambda *values: torch.cat(values, dim),
            lambda out, *steps: arithmetic.concat(self, out, *steps, dim=dim),
            tuple(x),
        )

    @classmethod
    def method_limits(
        cls,
        name: str,
        given: Mapping[str, Any],
        row: MarchRow,
        dtype: QuantDType,
        inputs: Sequence[QuantDType | None] = (),
    ) -> list[str]:
        """Return what the march refuses of a call of a method; see ``Operator.limits``."""
        if name in _OTHERS:
            return _any_activation(row, dtype, inputs, given)
        if name not in METHODS:
            return [f"FloatFunctional.{name}, which has no integer form (allowed: {', '.join((*METHODS, *_OTHERS))})"]
        return METHODS[name].limits(row, dtype, inputs, given)

    def _get_name(self) -> str:
        return "FloatFunctional"


_KERNELS = [kernel for method in METHODS.values() for kernel in method.kernels]
_KERNELS += [kernel for kernels in _OTHERS.values() for kernel in kernels]

ROWS = (
    OpRow(
        name="FloatFunctional",
        floats=(FloatFunctional,),
        qat=QATFloatFunctional,
        kernels=tuple(dict.fromkeys(_KERNELS)),
        note="Operators and functions of torch (x + y, torch.cat, ...) become one of these each.",
    ),
)

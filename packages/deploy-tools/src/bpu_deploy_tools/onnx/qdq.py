"""QDQ: the operators of a Program as float operators between DequantizeLinear and QuantizeLinear.

What multiplies is written in real numbers, the rest as of ``integer``. A layer's multiplier M turns accumulator units
into output steps, so one unit is ``M * output scale`` and a weight's scale is that over the input's scale. Rounding
differs from the board's (half to even once, where it shifts twice), so integers may differ by a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from bpu_kernels import TensorSpec
from bpu_kernels.dtypes import qint8, qint32
from bpu_kernels.fixed_point import Multiplier, wrap32
from bpu_kernels.kernel import Kernel
from bpu_kernels.march import MarchRow
from bpu_kernels.ops.conv import Conv2d, Conv3d
from bpu_kernels.ops.conv_transpose import ConvTranspose2d
from bpu_kernels.ops.elementwise import Add, AddScaled, Mul, Rescale
from bpu_kernels.ops.linear import Linear, Matmul
from bpu_kernels.ops.pool import AvgPool2d, GlobalAvgPool2d
from bpu_kernels.ops.reduce import Sum

from .graph import Graph
from .integer import pad_behind

__all__ = ["QDQ", "Step", "dequantized", "quantized"]

_ALIKE = 0.01
"""Factors that differ by less from 1 come from the multiplier's rounding and are left out."""


@dataclass(frozen=True)
class Step:
    """One node of a Program with all that its row needs."""

    row: MarchRow
    inputs: tuple[str, ...]
    """Names of the inputs' real values."""
    specs: tuple[TensorSpec, ...]
    scales: tuple[np.ndarray, ...]
    """Of the inputs."""
    scale: np.ndarray
    """Of the output."""


def dequantized(g: Graph, x: str, scale: np.ndarray, rank: int) -> str:
    """Return the real values of integers, whose scale is one or per channel (last axis)."""
    attributes = {} if scale.size == 1 else {"axis": rank - 1}
    return g.add("DequantizeLinear", x, _scale(g, scale), **attributes)


def quantized(g: Graph, x: str, spec: TensorSpec, scale: np.ndarray) -> str:
    """Return the integers of real values, int8 or int16."""
    zero = g.constant(np.zeros((), spec.dtype.numpy), spec.dtype.numpy)
    return g.add("QuantizeLinear", x, _scale(g, scale), zero)


def _scale(g: Graph, scale: np.ndarray) -> str:
    return g.constant(scale.reshape(()) if scale.size == 1 else scale, np.float32)


def _real_multiplier(by: Multiplier, *, shift_only: bool = False) -> np.ndarray:
    """Return M of a multiplier; of an int32 output only the last shift counts (2)."""
    fields = {name: np.asarray(value, np.float64) for name, value in vars(by).items()}
    if shift_only:
        return np.exp2(-fields["output_right_shift"])
    found: np.ndarray = fields["output_scale"] * np.exp2(-fields["accu_right_shift"] - fields["output_right_shift"])
    return found


def _times(g: Graph, x: str, factor: float) -> str:
    """Multiply by a real number, unless it is nearly 1."""
    return x if abs(factor - 1) < _ALIKE else g.add("Mul", x, g.constant(np.float32(factor), np.float32))


def _layer(g: Graph, s: Step, k: Any, weight: np.ndarray, axis: int, op: str, x: str, **attributes: Any) -> str:
    """Append a layer with int8 weights, whose output channels lie along ``axis``, and its bias."""
    wide = getattr(k, "out_dtype", qint8) is qint32
    multiplier = np.ravel(_real_multiplier(k.multiplier, shift_only=wide))
    unit = np.ravel(multiplier * s.scale)
    outputs = weight.shape[axis] * (k.groups if op == "ConvTranspose" else 1)
    unit = np.broadcast_to(unit, (outputs,))
    if op == "ConvTranspose" and k.groups > 1:  # several groups share an output channel's place in the weights
        spread = np.repeat(unit.reshape(k.groups, 1, -1), weight.shape[0] // k.groups, axis=1)
        real = weight * (spread.reshape(weight.shape[0], -1, 1, 1) / s.scales[0])
        w = g.constant(real, np.float32)
    else:
        scales = g.constant(unit / s.scales[0], np.float32)
        # ONNX Runtime may turn weights and zero points into uint8, in place: it fails without zero points, and where
        # two layers share either.
        integers = (np.ascontiguousarray(weight, np.int8), np.zeros(outputs, np.int8))
        stored, zeros = map(g.own_constant, integers)
        w = g.add("DequantizeLinear", stored, scales, zeros, axis=axis)
    if k.bias is None:
        return g.add(op, x, w, **attributes)
    bias_steps = wrap32(np.asarray(k.bias.bias, np.int64) << np.asarray(k.bias.bias_left_shift, np.int64))
    if not s.row.rounds and not wide:  # equation (7): half a step that makes up for flooring
        bias_steps = bias_steps - np.floor(0.5 / np.maximum(multiplier, 1e-30) + 0.5).astype(np.int64)
    bias_steps = np.broadcast_to(np.clip(bias_steps, -(2**31), 2**31 - 1), (outputs,))
    bias = g.add("DequantizeLinear", g.constant(bias_steps, np.int32), g.constant(unit, np.float32), axis=0)
    if op == "MatMul":
        return g.add("Add", g.add(op, x, w), bias)
    return g.add(op, x, w, bias, **attributes)


def _finished(g: Graph, s: Step, k: Any, y: str) -> str:
    """Residual and ReLU."""
    if len(s.inputs) > 1:
        y = g.add("Add", y, s.inputs[1])
    return g.add("Relu", y) if k.relu else y


def _conv(g: Graph, s: Step, k: Any) -> str:
    rank = len(s.specs[0].shape)
    attributes = {"strides": list(k.stride), "pads": [*k.pad, *k.pad], "dilations": list(k.dilation), "group": k.groups}
    weight = np.moveaxis(np.asarray(k.weight), -1, 1)
    y = _layer(g, s, k, weight, 0, "Conv", g.channels_first(s.inputs[0], rank), **attributes)
    return _finished(g, s, k, g.channels_last(y, rank))


def _conv_transpose2d(g: Graph, s: Step, k: ConvTranspose2d) -> str:
    attributes = {"strides": list(k.stride), "pads": [*k.pad, *k.pad], "group": k.groups}
    attributes["output_padding"] = list(k.output_padding)
    weight = np.asarray(k.weight).transpose(0, 3, 1, 2)
    y = _layer(g, s, k, weight, 1, "ConvTranspose", g.channels_first(s.inputs[0], 4), **attributes)
    return _finished(g, s, k, g.channels_last(y, 4))


def _linear(g: Graph, s: Step, k: Linear) -> str:
    return _finished(g, s, k, _layer(g, s, k, np.asarray(k.weight).T, 1, "MatMul", s.inputs[0]))


def _factor(s: Step, k: Any, steps: float = 1.0) -> float:
    """Return what a unit of the accumulator, times ``steps``, is beside the product of the inputs' scales."""
    unit = float(np.ravel(_real_multiplier(k.multiplier))[0] * s.scale.ravel()[0])
    return unit * steps / float(prod(scale.ravel()[0] for scale in s.scales))


def _product(op: str) -> Callable[[Graph, Step, Any], str]:
    return lambda g, s, k: _times(g, g.add(op, *s.inputs), _factor(s, k))


def _sum_of(g: Graph, s: Step, k: Any, first: float, second: float) -> str:
    """Add two inputs; the factors are the accumulator units of a step of each."""
    unit = float(np.ravel(_real_multiplier(k.multiplier))[0] * s.scale.ravel()[0])
    x, y = (unit * steps / float(scale.ravel()[0]) for steps, scale in zip((first, second), s.scales, strict=True))
    op = "Sub" if y < 0 else "Add"
    return g.add(op, _times(g, s.inputs[0], x), _times(g, s.inputs[1], abs(y)))


def _add(g: Graph, s: Step, k: Add) -> str:
    second = float(np.ravel(k.residual.sumin_scale)[0]) * 2.0 ** int(np.ravel(k.residual.sumin_left_shift)[0])
    return _sum_of(g, s, k, 2.0 ** int(np.ravel(k.input_left_shift)[0]), second)


def _add_scaled(g: Graph, s: Step, k: AddScaled) -> str:
    return _sum_of(g, s, k, float(np.ravel(k.input_scale)[0]), float(np.ravel(k.sumin_scale)[0]))


def _rescale(g: Graph, s: Step, k: Rescale) -> str:
    return _times(g, s.inputs[0], _factor(s, k))


def _avg_pool2d(g: Graph, s: Step, k: AvgPool2d) -> str:
    ends = pad_behind(k, s.specs[0])
    x = g.channels_first(s.inputs[0], 4)
    if any((*k.pad, *ends)):
        x = g.add("Pad", x, g.constant([0, 0, *k.pad, 0, 0, *ends]))
    y = g.channels_last(g.add("AveragePool", x, kernel_shape=list(k.kernel), strides=list(k.stride)), 4)
    return _times(g, y, _factor(s, k, prod(k.kernel)))


def _global_avg_pool2d(g: Graph, s: Step, k: GlobalAvgPool2d) -> str:
    y = g.add("ReduceMean", s.inputs[0], g.constant([1, 2]), keepdims=1)
    return _times(g, y, _factor(s, k, prod(s.specs[0].shape[1:3])))


def _sum(g: Graph, s: Step, k: Sum) -> str:
    return _times(g, g.add("ReduceSum", s.inputs[0], g.constant([k.axis]), keepdims=1), _factor(s, k))


QDQ: dict[type[Kernel], Callable[[Graph, Step, Any], str]] = {
    Add: _add,
    AddScaled: _add_scaled,
    AvgPool2d: _avg_pool2d,
    Conv2d: _conv,
    Conv3d: _conv,
    ConvTranspose2d: _conv_transpose2d,
    GlobalAvgPool2d: _global_avg_pool2d,
    Linear: _linear,
    Matmul: _product("MatMul"),
    Mul: _product("Mul"),
    Rescale: _rescale,
    Sum: _sum,
}
"""Kernel -> its form in real numbers; kernels that are not here copy or choose integers and stay as they are."""

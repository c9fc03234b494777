"""Calls of the HBIR builder for layers with weights, and for products of matrices."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from bpu_kernels import TensorSpec
from bpu_kernels.dtypes import qint8
from bpu_kernels.ops.conv import Conv2d, Conv3d
from bpu_kernels.ops.conv_transpose import ConvTranspose2d
from bpu_kernels.ops.linear import Linear, Matmul

from .plan import Inputs, Plan, Ref, Specs, axis_of, tuple_of, type_of

__all__ = ["conv2d", "conv3d", "conv_transpose2d", "linear", "matmul"]


def _weights(p: Plan, k: Any, inputs: Inputs, channels: int) -> dict[str, Any]:
    """Return bias, residual, multiplier, ReLU and rounding of a layer with weights."""
    options: dict[str, Any] = {
        **p.multiplier(k.multiplier, channels),
        "use_relu": k.relu,
        "enable_rounding": p.row.rounds,
    }
    options["use_bias"] = k.bias is not None
    options["bias_data"] = p.per_channel(k.bias.bias, channels) if k.bias else []
    options["bias_left_shift"] = p.per_channel(k.bias.bias_left_shift, channels) if k.bias else []
    if len(inputs) > 1:
        options["sumin"] = inputs[1]
        options["sumin_scale"] = p.per_channel(k.residual.sumin_scale, channels)
        options["sumin_left_shift"] = p.per_channel(k.residual.sumin_left_shift, channels)
    return options


def conv2d(p: Plan, k: Conv2d, inputs: Inputs, specs: Specs) -> Ref:
    """One layer, with its residual."""
    channels = k.weight.shape[0]
    return p.helper(
        "SConvolution",
        inputs[0],
        num_filter=channels,
        kernel=tuple_of(k.weight.shape[1:3]),
        stride=tuple_of(k.stride),
        pad=tuple_of(k.pad),
        dilation=tuple_of(k.dilation),
        num_group=k.groups,
        output_type=type_of(k.out_dtype),
        weight_data=p.array(k.weight),
        **_weights(p, k, inputs, channels),
    )


def linear(p: Plan, k: Linear, inputs: Inputs, specs: Specs) -> Ref:
    """As a 1 x 1 convolution, which is the same sum and takes a residual."""
    fields = {f.name: getattr(k, f.name) for f in dataclasses.fields(k) if f.name != "weight"}
    return conv2d(p, Conv2d(weight=k.weight[:, None, None, :], **fields), inputs, specs)


def conv3d(p: Plan, k: Conv3d, inputs: Inputs, specs: Specs) -> Ref:
    """One layer, with its residual."""
    channels, layer = k.weight.shape[0], p.layer()
    o = _weights(p, k, inputs, channels)
    return p.call(
        "base",
        "CreateConv3dLayer",
        inputs[0],
        layer,
        *map(tuple_of, (k.weight.shape[1:4], k.stride, k.pad, k.dilation)),
        channels,
        k.groups,
        o["use_bias"],
        k.relu,
        o.get("sumin", "null"),
        f"{layer}_weight",
        p.array(k.weight),
        f"{layer}_bias",
        o["bias_data"],
        f"{layer}_output",
        type_of(k.out_dtype),
        o["enable_rounding"],
        o["bias_left_shift"],
        o["output_scale"],
        o["accu_right_shift"],
        o.get("sumin_scale", []),
        o.get("sumin_left_shift", []),
        o["output_right_shift"],
    )


def conv_transpose2d(p: Plan, k: ConvTranspose2d, inputs: Inputs, specs: Specs) -> Ref:
    """One layer, with its residual."""
    channels, layer = k.weight.shape[3] * k.groups, p.layer()
    o = _weights(p, k, inputs, channels)
    return p.call(
        "base",
        "CreateSDeconvolutionLayer",
        inputs[0],
        layer,
        channels,
        *map(tuple_of, (k.weight.shape[1:3], k.stride, k.pad, k.output_padding)),
        k.groups,
        o["use_bias"],
        k.relu,
        o.get("sumin", "null"),
        type_of(qint8),
        f"{layer}_output",
        f"{layer}_weight",
        p.array(k.weight),
        f"{layer}_bias",
        o["bias_data"],
        o["enable_rounding"],
        o["accu_right_shift"],
        o["bias_left_shift"],
        o["output_scale"],
        o["output_right_shift"],
        o.get("sumin_scale", []),
        o.get("sumin_left_shift", []),
    )


def matmul(p: Plan, k: Matmul, inputs: Inputs, specs: Specs) -> Ref:
    """Operands whose leading axes are shorter are repeated, but for the one form that the checker takes."""
    leading, columns = k.infer(*specs).shape[:-2], specs[1].shape[-1]
    first, second = (spec.shape[:-2] for spec in specs)
    if first != leading or len(leading) != 2 or second[0] != leading[0]:
        inputs = [_repeated(p, x, spec, leading) for x, spec in zip(inputs, specs, strict=True)]
    return p.helper(
        "SGemm", inputs, 1, 0, False, False, output_type=type_of(qint8), enable_rounding=True,
        **p.multiplier(k.multiplier, columns),
    )  # fmt: skip


def _repeated(p: Plan, x: Ref, spec: TensorSpec, leading: Sequence[int]) -> Ref:
    """Repeat a tensor along its leading axes of length 1, up to some lengths."""
    missing = len(leading) - len(spec.shape) + 2
    shape = [*(1,) * missing, *spec.shape]
    for axis, length in enumerate(leading):
        if shape[axis] != length:
            shape[axis] = length
            x = p.concat([x] * length, axis_of(axis, len(shape)), spec.dtype)
    return x

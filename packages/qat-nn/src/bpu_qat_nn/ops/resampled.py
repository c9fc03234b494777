"""Resizing that the BPU has no operator for, as two linear layers with constant weights, one along each axis."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.ops.linear import Linear

from ..op import Operator
from ..qtensor import QTensor

__all__ = ["resize_by_weights"]

_BITS = 6
"""Weights are 64ths: the largest, 1, is then within int8."""


def resize_weights(length: int, size: int, mode: str, align_corners: bool) -> Tensor:
    """Return the weights of every output element (size, length) in 64ths, int8, each row of sum 64.

    They are torch's own, taken off the resized unit vectors and rounded; what rounding adds or takes goes to the
    largest of a row, so that constants stay constant.

    Args:
        length: of the axis before.
        size: of the axis behind.
        mode: "bilinear" or "bicubic".
        align_corners: as of ``F.interpolate``.
    """
    unit = torch.eye(length, dtype=torch.float64).reshape(length, 1, 1, length).expand(-1, -1, 2, -1)
    real = F.interpolate(unit, size=(2, size), mode=mode, align_corners=align_corners)[:, 0, 0].T
    rounded = torch.round(real * 2**_BITS)
    rounded[torch.arange(size), real.argmax(1)] += 2**_BITS - rounded.sum(1)
    return rounded.to(torch.int8)


def resize_by_weights(operator: Operator, x: QTensor, size: tuple[int, int], mode: str, align_corners: bool) -> QTensor:
    """Resize (N, C, H, W): blend along the width, then along the height, rounded half up and saturated each time."""
    y: Any = x
    for wanted in reversed(size):
        y = _along_last(operator, y, wanted, mode, align_corners).transpose(2, 3)
    resized: QTensor = y
    return resized


def _along_last(operator: Operator, x: QTensor, size: int, mode: str, align_corners: bool) -> Any:
    length = int(x.shape[-1])
    if size == length:
        return x

    def build() -> Linear:
        number = torch.full((3, 1), 0, dtype=torch.int32, device=x.scale.device)
        number[1], number[2] = 1, _BITS
        by = Multiplier(accu_right_shift=number[0], output_scale=number[1], output_right_shift=number[2])
        weight = resize_weights(length, size, mode, align_corners)
        return Linear(weight=weight.to(x.scale.device), multiplier=by)

    kernel = operator.derived.get([x], build, mode, align_corners, length, size)
    return x.invoke(kernel, operator.row, x, scale=x.scale, dtype=x.dtype)

"""Average pooling whose windows at the border count fewer elements: padding left out, or a last window cut short."""

from __future__ import annotations

import torch

from bpu_kernels.dtypes import qint16
from bpu_kernels.multiplier import choose_multiplier
from bpu_kernels.ops.conv import Conv2d
from bpu_kernels.ops.layout import Pad

from ...op import Operator, Output
from ...qtensor import QTensor
from ..arithmetic import mul
from ..rescale import as_multiplier

__all__ = ["average_of_counted", "counted"]


def counted(size: int, kernel: int, stride: int, pad: int, *, ceil_mode: bool, includes_pad: bool) -> list[int]:
    """Return how many elements each window along an axis counts, by torch's rules."""
    free = size + 2 * pad - kernel
    windows = (-(-free // stride) if ceil_mode else free // stride) + 1
    if ceil_mode and (windows - 1) * stride >= size + pad:  # a window that would start in the padding is left out
        windows -= 1
    starts = [index * stride - pad for index in range(windows)]
    last = size + pad if includes_pad else size
    return [min(start + kernel, last) - (start if includes_pad else max(start, 0)) for start in starts]


def average_of_counted(
    operator: Operator,
    x: QTensor,
    out: Output,
    counts: tuple[list[int], list[int]],
    *,
    window: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
) -> QTensor:
    """Average windows of int8 that count ``counts`` elements each.

    A depthwise convolution by ones gives sums of 16 bits, divided by the whole window; a constant map, the window's
    elements over those counted, corrects them.
    """
    row, channels = operator.row, int(x.shape[1])
    after = [
        max(0, (len(each) - 1) * s + k - n - p)
        for each, s, k, n, p in zip(counts, stride, window, x.shape[2:], pad, strict=True)
    ]
    padding = Pad(before=(0, 0, *pad), after=(0, 0, *after))
    padded = x.invoke(padding, row, x, scale=x.scale, dtype=x.dtype)
    scale = operator.derived.get([x], lambda: x.scale * (-x.dtype.min / qint16.max), "mean scale")

    def build() -> tuple[Conv2d, QTensor]:
        area = window[0] * window[1]
        bound = torch.full_like(x.scale, float(-x.dtype.min * area), dtype=torch.float64)
        chosen = choose_multiplier(x.scale.double() / (scale.double() * area), bound, qint16, row, xp=torch)
        ones = torch.ones(channels, *window, 1, dtype=torch.int8, device=x.scale.device)
        sums = Conv2d(weight=ones, multiplier=as_multiplier(chosen), stride=stride, groups=channels, out_dtype=qint16)
        shares = area / (torch.tensor(counts[0])[:, None] * torch.tensor(counts[1])[None, :]).double()
        unit = float(shares.max()) / qint16.max
        steps = torch.floor(shares / unit + 0.5).to(torch.int16)[None, None].to(x.scale.device)
        unit_scale = torch.tensor([unit], dtype=torch.float32, device=x.scale.device)
        return sums, QTensor(steps, unit_scale, None, qint16)

    key = (window, stride, pad, channels, tuple(counts[0]), tuple(counts[1]))
    kernel, share = operator.derived.get([x], build, "uncounted", *key)
    means = padded.invoke(kernel, row, padded, scale=scale, dtype=qint16)
    return mul(operator, out, means, share)

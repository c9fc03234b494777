"""Patches of a map as columns, and back: nn.Unfold and nn.Fold, as grouped convolutions whose weights are 0 and 1."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bpu_kernels.dtypes import QuantDType, qint8, qint16
from bpu_kernels.kernel import Kernel
from bpu_kernels.march import MarchRow
from bpu_kernels.multiplier import choose_multiplier
from bpu_kernels.ops.conv import Conv2d
from bpu_kernels.ops.conv_transpose import ConvTranspose2d

from ..op import Operator, OpRow, Output, type_problems
from ..qat_module import QATModule
from ..qtensor import QTensor
from ..quantized_module import QuantizedModule
from .masks import exactly
from .pooling.average import pair
from .rescale import as_multiplier

__all__ = ["ROWS"]


def _ones(window: tuple[int, int], device: torch.device) -> Tensor:
    """Return kernels (kh kw, kh, kw), int8, each of which takes one element of the window."""
    return torch.eye(prod(window), dtype=torch.int8, device=device).reshape(-1, *window)


class WindowOperator(Operator):
    """What both have in common: a window that moves over a map."""

    config: ClassVar[tuple[str, ...]] = ("kernel_size", "dilation", "padding", "stride")

    kernel_size: Any
    dilation: Any
    padding: Any
    stride: Any

    @property
    def window(self) -> tuple[int, int]:
        """Height and width of the window."""
        return pair(self.kernel_size)

    def positions(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return how many positions the window has along height and width of a map."""
        along = zip(size, self.window, pair(self.dilation), pair(self.padding), pair(self.stride), strict=True)
        high, wide = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, d, p, s in along)
        return high, wide

    def extra_repr(self) -> str:
        """Window."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class UnfoldOperator(WindowOperator):
    """``F.unfold``: (N, C, H, W) -> (N, C kh kw, positions)."""

    own_scale: ClassVar[bool] = False
    keeps_grid: ClassVar[bool] = True
    axes: ClassVar[int | None] = 4

    def real(self, *inputs: Tensor) -> Tensor:
        """Unfold."""
        return F.unfold(inputs[0], self.kernel_size, self.dilation, self.padding, self.stride)

    def steps(self, out: Output, *inputs: QTensor) -> QTensor:
        """Convolve every channel with kernels of a single 1, which leaves integers as they are."""
        x, device = inputs[0], inputs[0].scale.device
        channels, stride = int(x.shape[1]), pair(self.stride)
        picked = x.dtype is qint16  # of which the hardware has no depthwise convolution with an even stride
        kernel = Conv2d(
            weight=_ones(self.window, device).repeat(channels, 1, 1).unsqueeze(-1),
            multiplier=exactly(device),
            stride=(1, 1) if picked else stride,
            pad=pair(self.padding),
            dilation=pair(self.dilation),
            groups=channels,
            out_dtype=x.dtype,
        )
        y: Any = x.invoke(kernel, self.row, x, scale=out.scale, dtype=out.dtype)
        y = y[:, :, :: stride[0], :: stride[1]] if picked else y
        columns: QTensor = y.reshape([x.shape[0], channels * prod(self.window), -1])
        return columns


class QuantizedUnfold(UnfoldOperator, QuantizedModule):
    """Patches of integers."""


class QATUnfold(UnfoldOperator, QATModule):
    """Patches under quantization-aware training."""

    quantized = QuantizedUnfold

    @classmethod
    def limits(
        cls, module: Any, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """Those of the convolution; marches that can regroup axes."""
        return [*_window_problems(module, row), *type_problems(inputs, row.activations)]


def _window_problems(module: Any, row: MarchRow) -> list[str]:
    found = [] if row.moves_freely else ["regrouping the axes"]
    limits = {
        "kernel_size": row.depthwise_kernel,
        "stride": row.stride,
        "padding": row.pad,
        "dilation": row.dilation,
    }
    for name, limit in limits.items():
        value = getattr(module, name)
        if any(each not in limit for each in pair(value)):
            found.append(f"{name} {value} (allowed: {limit})")
    return found


class FoldOperator(WindowOperator):
    """``F.fold``: (N, C kh kw, positions) -> (N, C, H, W); elements of patches that overlap are summed."""

    axes: ClassVar[int | None] = 3
    config: ClassVar[tuple[str, ...]] = (*WindowOperator.config, "output_size")

    output_size: Any

    def real(self, *inputs: Tensor) -> Tensor:
        """Fold."""
        return F.fold(inputs[0], self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def steps(self, out: Output, *inputs: QTensor) -> QTensor:
        """Scatter by a transposed convolution; with stride 1 that is a convolution with turned kernels."""
        x: Any = inputs[0]
        size, window = pair(self.output_size), self.window
        channels = int(x.shape[1]) // prod(window)
        columns = x.reshape([x.shape[0], channels * prod(window), *self.positions(size)])

        def build() -> Kernel:
            bound = torch.full_like(x.scale, float(-qint8.min * prod(window)), dtype=torch.float64)
            chosen = choose_multiplier(x.scale.double() / out.scale.double(), bound, qint8, self.row, xp=torch)
            return self._kernel(channels, size, multiplier=as_multiplier(chosen), groups=channels)

        kernel = self.derived.get([x, out], build, "fold", channels, size)
        folded: QTensor = columns.invoke(kernel, self.row, columns, scale=out.scale, dtype=out.dtype)
        return folded

    def _kernel(self, channels: int, size: tuple[int, int], **parameters: Any) -> Kernel:
        window, pad, stride = self.window, pair(self.padding), pair(self.stride)
        ones = _ones(window, parameters["multiplier"].output_scale.device)
        if stride == (1, 1):
            turned = ones.flip(1, 2).permute(1, 2, 0).repeat(channels, 1, 1, 1)
            inside = (window[0] - 1 - pad[0], window[1] - 1 - pad[1])
            return Conv2d(weight=turned.contiguous(), pad=inside, **parameters)
        left = (
            n - ((m - 1) * s - 2 * p + k)
            for n, m, s, p, k in zip(size, self.positions(size), stride, pad, window, strict=True)
        )
        high, wide = left
        scattered = ones.repeat(channels, 1, 1).unsqueeze(-1)
        return ConvTranspose2d(weight=scattered, stride=stride, pad=pad, output_padding=(high, wide), **parameters)


class QuantizedFold(FoldOperator, QuantizedModule):
    """Patches of integers put back."""


class QATFold(FoldOperator, QATModule):
    """Patches put back under quantization-aware training."""

    quantized = QuantizedFold

    @classmethod
    def limits(
        cls, module: Any, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """Those of the transposed convolution; int8; no dilation."""
        found = [] if row.moves_freely else ["regrouping the axes"]
        stride, window = pair(module.stride), pair(module.kernel_size)
        if stride != (1, 1) and any(s not in row.transpose_stride for s in stride):
            found.append(f"stride {module.stride} (allowed: 1, or {row.transpose_stride})")
        if stride != (1, 1) and any(k not in row.transpose_kernel for k in window):
            found.append(f"kernel_size {module.kernel_size} (allowed: {row.transpose_kernel})")
        if pair(module.dilation) != (1, 1):
            found.append(f"dilation {module.dilation} (allowed: 1)")
        return [*found, *type_problems([dtype, *inputs], [qint8])]


ROWS = (
    OpRow(
        name="Unfold",
        floats=(nn.Unfold,),
        qat=QATUnfold,
        kernels=("conv2d", "reshape"),
        note="A grouped convolution with kernels of a single 1, so integers stay as they are.",
    ),
    OpRow(
        name="Fold",
        floats=(nn.Fold,),
        qat=QATFold,
        kernels=("conv_transpose2d", "conv2d", "reshape"),
        note="A transposed convolution with kernels of a single 1; what overlaps is summed at the accumulator's "
        "precision.",
    ),
)

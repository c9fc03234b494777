"""KERNELS: every operator by the name that Program files use; an operator of this package is a row here."""

from __future__ import annotations

from .kernel import Kernel
from .ops.choose import Gather, TopIndices
from .ops.concat import Concat
from .ops.constant import Constant
from .ops.conv import Conv2d, Conv3d
from .ops.conv_transpose import ConvTranspose2d
from .ops.elementwise import Add, AddScaled, Extremum, Mul, Reinterpret, Relu, Rescale
from .ops.layout import Pad, Reshape, Slice, Transpose
from .ops.linear import Linear, Matmul
from .ops.lut import Lut8, Lut16
from .ops.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from .ops.reduce import ArgExtremum, ReduceExtremum, Sum
from .ops.resize import ResizeBilinear, ResizeNearest
from .ops.sample import GridSample, RoiAlign

__all__ = ["KERNELS"]

KERNELS: dict[str, type[Kernel]] = {
    kernel.name: kernel
    for kernel in (
        Add,
        AddScaled,
        ArgExtremum,
        AvgPool2d,
        Concat,
        Constant,
        Conv2d,
        Conv3d,
        ConvTranspose2d,
        Extremum,
        Gather,
        GlobalAvgPool2d,
        GridSample,
        Linear,
        Lut8,
        Lut16,
        Matmul,
        MaxPool2d,
        Mul,
        Pad,
        ReduceExtremum,
        Reinterpret,
        Relu,
        Rescale,
        Reshape,
        ResizeBilinear,
        ResizeNearest,
        RoiAlign,
        Slice,
        Sum,
        TopIndices,
        Transpose,
    )
}

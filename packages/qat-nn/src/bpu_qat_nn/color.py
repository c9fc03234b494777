"""Colour conversion, BT.601: in float for pre-processing, on integers for YUV input of a converted model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bpu_fx_fusion import register_leaf_module
from bpu_kernels.dtypes import qint8
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.kernel import Kernel
from bpu_kernels.march import MarchRow, march_row
from bpu_kernels.multiplier import Bias
from bpu_kernels.ops.color import KB, KG, KR, centered_yuv_to_rgb, rgb_to_yuv_matrix
from bpu_qconfig import get_march

from .capture.captured_tensor import uncaptured
from .errors import InputError, QTensorError
from .qtensor import QTensor

__all__ = [
    "BgrToYuv444",
    "bgr2centered_gray",
    "bgr2centered_yuv",
    "bgr2gray",
    "bgr2rgb",
    "bgr2yuv",
    "centered_yuv2bgr",
    "centered_yuv2rgb",
    "rgb2bgr",
    "rgb2centered_gray",
    "rgb2centered_yuv",
    "rgb2gray",
    "rgb2yuv",
]


def rgb2bgr(input: Tensor) -> Tensor:
    """Swap the first and last of three channels; [N, 3, H, W]."""
    return input.flip(-3)


bgr2rgb = rgb2bgr


def _mixed(input: Tensor, rows: Sequence[Sequence[Any]]) -> Tensor:
    if input.dim() < 3 or input.shape[-3] != 3:
        raise InputError(f"expected images of three channels, [N, 3, H, W], got the shape {tuple(input.shape)}")
    matrix = torch.tensor([[float(c) for c in row] for row in rows], dtype=torch.float32, device=input.device)
    return torch.einsum("oc,...chw->...ohw", matrix, input.to(torch.float32))


def rgb2gray(input: Tensor) -> Tensor:
    """Luma of an RGB image 0..255, [N, 1, H, W], 0..255."""
    return _mixed(input, [(KR, KG, KB)])


def bgr2gray(input: Tensor) -> Tensor:
    """Luma of a BGR image 0..255, [N, 1, H, W], 0..255."""
    return rgb2gray(bgr2rgb(input))


def rgb2centered_gray(input: Tensor) -> Tensor:
    """Luma of an RGB image minus 128, [N, 1, H, W], -128..127."""
    return rgb2gray(input) - 128.0


def bgr2centered_gray(input: Tensor) -> Tensor:
    """Luma of a BGR image minus 128, [N, 1, H, W], -128..127."""
    return bgr2gray(input) - 128.0


def rgb2centered_yuv(input: Tensor, swing: str = "studio") -> Tensor:
    """Convert images from RGB to centered YUV444, BT.601.

    Args:
        input: RGB, [N, 3, H, W], 0..255, any number type.
        swing: "studio" for Y -112..107 and U, V -112..112, "full" for -128..127; BPU input is full swing.

    Returns:
        float32 [N, 3, H, W]. Pure colours touch 127.5 in full swing; quantizing saturates them.
    """
    matrix, black = rgb_to_yuv_matrix(swing)
    offset = torch.tensor([float(black) - 128.0, 0.0, 0.0], device=input.device)
    return _mixed(input, matrix) + offset[:, None, None]


def bgr2centered_yuv(input: Tensor, swing: str = "studio") -> Tensor:
    """Convert images from BGR to centered YUV444; see ``rgb2centered_yuv``."""
    return rgb2centered_yuv(bgr2rgb(input), swing)


def rgb2yuv(input: Tensor, swing: str = "studio") -> Tensor:
    """Convert images from RGB to YUV444: studio Y 16..235, U and V 16..240; full 0..255."""
    return rgb2centered_yuv(input, swing) + 128.0


def bgr2yuv(input: Tensor, swing: str = "studio") -> Tensor:
    """Convert images from BGR to YUV444; see ``rgb2yuv``."""
    return rgb2yuv(bgr2rgb(input), swing)


def _values(given: Sequence[float] | Tensor | float) -> list[float]:
    flat: list[float] = torch.as_tensor(given, dtype=torch.float64).reshape(-1).tolist()
    return flat


def _to_rgb(input: Any, swing: str, mean: Any, std: Any, q_scale: Any, *, bgr: bool) -> QTensor:
    if not hasattr(input, "invoke"):
        raise QTensorError(
            f"expected a quantized tensor (int8 steps of centered YUV, scale 1), got {type(input).__name__}: this "
            "operator belongs behind the QuantStub of a converted model"
        )
    with uncaptured():
        row, kernel, scale = _conversion(input, swing, mean, std, q_scale, bgr=bgr)
    result: QTensor = input.invoke(kernel, row, input, scale=scale, dtype=qint8, narrow=True)
    return result


def _conversion(
    input: Any, swing: str, mean: Any, std: Any, q_scale: Any, *, bgr: bool
) -> tuple[MarchRow, Kernel, Tensor]:
    """Return the march, the convolution, and the scale of its output."""
    if not input.holds_steps or _values(input.scale) != [1.0]:
        raise QTensorError(
            f"expected int8 steps of scale 1, which is what the pyramid gives, got "
            f"{'steps' if input.holds_steps else 'real values'} of scale {_values(input.scale)}: insert this operator "
            "behind the QuantStub of a converted model and set the stub's scale to 1, model.quant.scale.fill_(1)"
        )
    row, scale = march_row(get_march()), _values(q_scale)
    if len(scale) != 1:
        raise QTensorError(f"expected one q_scale, got {scale}")
    plan = centered_yuv_to_rgb(row, swing=swing, mean=_values(mean), std=_values(std), q_scale=scale[0], bgr=bgr)
    device = input.scale.device

    def tensors(fields: Any) -> dict[str, Tensor]:
        return {name: torch.from_numpy(value).to(device) for name, value in vars(fields).items()}

    kernel = type(plan)(
        weight=torch.from_numpy(plan.weight).to(device),
        bias=Bias(**tensors(plan.bias)),
        multiplier=Multiplier(**tensors(plan.multiplier)),
    )
    return row, kernel, torch.tensor(scale, dtype=torch.float32, device=device)


@register_leaf_module
class BgrToYuv444(nn.Module):
    """``bgr2yuv`` as a module, in float before the QuantStub: studio swing, Y 16..235, U and V 16..240.

    Args:
        channel_reversal: whether images are RGB.
    """

    def __init__(self, channel_reversal: bool = False) -> None:
        super().__init__()
        self.channel_reversal = channel_reversal

    def forward(self, input: Tensor) -> Tensor:
        """Convert images [N, 3, H, W], 0..255."""
        return rgb2yuv(input) if self.channel_reversal else bgr2yuv(input)

    def extra_repr(self) -> str:
        """Show the order of channels."""
        return f"channel_reversal={self.channel_reversal}"


def centered_yuv2rgb(
    input: QTensor,
    swing: str = "studio",
    mean: Sequence[float] | Tensor = (128.0,),
    std: Sequence[float] | Tensor = (128.0,),
    q_scale: float | Tensor = 1.0 / 128.0,
) -> QTensor:
    """Convert centered YUV to RGB, normalize by mean and std, quantize by q_scale; for deployment only.

    Insert it after the QuantStub of a converted model, give the stub's former scale as q_scale, and set the stub's
    scale to 1. It runs as one 1 x 1 convolution; its coefficients are in bpu_kernels.ops.color.

    Args:
        input: int8 steps [N, 3, H, W] of centered YUV444 with scale 1, as the pyramid gives them.
        swing: "studio" or "full"; the BPU's input is full swing.
        mean: of R, G, B on 0..255, one or three.
        std: of R, G, B on 0..255, one or three.
        q_scale: scale of the result.
    """
    return _to_rgb(input, swing, mean, std, q_scale, bgr=False)


def centered_yuv2bgr(
    input: QTensor,
    swing: str = "studio",
    mean: Sequence[float] | Tensor = (128.0,),
    std: Sequence[float] | Tensor = (128.0,),
    q_scale: float | Tensor = 1.0 / 128.0,
) -> QTensor:
    """Convert centered YUV to BGR; see ``centered_yuv2rgb``; mean and std are in the order B, G, R."""
    return _to_rgb(input, swing, mean, std, q_scale, bgr=True)

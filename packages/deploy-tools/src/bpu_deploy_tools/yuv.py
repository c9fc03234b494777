"""Camera input for a model that was trained on RGB: a colour conversion behind its QuantStub, and images as NV12."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bpu_kernels import Node, Program
from bpu_kernels.ops.color import centered_yuv_to_rgb
from bpu_qat_nn import QuantizedGraphModule, centered_yuv2bgr, centered_yuv2rgb, rgb2yuv

from .errors import SurgeryError
from .surgery import input_stubs, insert_after

__all__ = ["insert_yuv_input", "rgb_to_nv12", "with_yuv_input"]


def insert_yuv_input(
    quantized: QuantizedGraphModule,
    *,
    mean: Sequence[float] = (128.0,),
    std: Sequence[float] = (128.0,),
    swing: str = "full",
    channel_order: str = "rgb",
    stub: str | None = None,
) -> None:
    """Let a converted model take centered YUV444, as the pyramid gives it, instead of normalized RGB; in place.

    Behind the QuantStub ``centered_yuv2rgb`` (or ``centered_yuv2bgr``) is inserted, which converts, normalizes and
    quantizes by the stub's scale; the stub's own scale becomes 1. Lower the model with ``input_source="pyramid"``.

    Args:
        quantized: returned by ``convert_fx``.
        mean: that images 0..255 were normalized with in training, one value or one per channel, in channel order.
        std: likewise.
        swing: "full", which is the BPU's, or "studio".
        channel_order: "rgb" or "bgr", of the images in training.
        stub: path of the QuantStub; None if the model has one input stub only.

    Raises:
        SurgeryError: no such stub, or several and none was named, or one that was edited before.
    """
    stubs = input_stubs(quantized)
    if stub is None and len(stubs) != 1:
        raise SurgeryError(f"expected one input QuantStub, found {list(stubs)}; name the image's one by stub=")
    path = next(iter(stubs)) if stub is None else stub
    if path not in stubs:
        raise SurgeryError(f"no input QuantStub {path!r}; the model has {list(stubs)}")
    if channel_order not in ("rgb", "bgr"):
        raise SurgeryError(f"expected channel_order 'rgb' or 'bgr', got {channel_order!r}")
    node = stubs[path]
    convert = centered_yuv2rgb if channel_order == "rgb" else centered_yuv2bgr
    if any(user.target in (centered_yuv2rgb, centered_yuv2bgr) for user in node.users):
        raise SurgeryError(f"QuantStub {path!r} has a colour conversion already")
    scale = quantized.get_submodule(path).scale
    assert isinstance(scale, Tensor)
    arguments = {"swing": swing, "mean": list(mean), "std": list(std), "q_scale": float(scale)}
    insert_after(quantized, node, convert, arguments)
    with torch.no_grad():
        scale.fill_(1.0)


def with_yuv_input(
    program: Program,
    *,
    mean: Sequence[float] = (128.0,),
    std: Sequence[float] = (128.0,),
    swing: str = "full",
    channel_order: str = "rgb",
    name: str | None = None,
    source: str = "pyramid",
) -> Program:
    """Return a Program for the camera's YUV of one that was lowered for normalized RGB.

    The same conversion as of ``insert_yuv_input``, put between the image and all that reads it.

    Args:
        program: with an int8 image input of three channels, whose scale is that of the normalized image.
        mean: that images 0..255 were normalized with in training, one value or one per channel, in channel order.
        std: likewise.
        swing: "full", which is the BPU's, or "studio".
        channel_order: "rgb" or "bgr", of the images in training.
        name: of the image; None if the Program has one input only.
        source: "pyramid" or "resizer".

    Raises:
        SurgeryError: no such input, several and none was named, or one that takes YUV already.
        UnsupportedError, InvalidProgramError: the input cannot be a camera's.
    """
    names = [each.name for each in program.inputs]
    if (name is None and len(names) != 1) or (name is not None and name not in names):
        raise SurgeryError(f"expected the name of one of the inputs {', '.join(names)}; got {name}")
    if channel_order not in ("rgb", "bgr"):
        raise SurgeryError(f"expected channel_order 'rgb' or 'bgr', got {channel_order!r}")
    image = program.inputs[0 if name is None else names.index(name)]
    if image.source != "ddr":
        raise SurgeryError(f"input {image.name!r} comes from the {image.source} already")
    taken = {*names, *(node.name for node in program.nodes), *(node.output for node in program.nodes)}
    converted = next(each for each in _numbered(f"{image.name}_{channel_order}") if each not in taken)
    kernel = centered_yuv_to_rgb(
        program.row, swing=swing, mean=mean, std=std, q_scale=image.scale[0], bgr=channel_order == "bgr"
    )
    conversion = Node(name=converted, kernel=kernel, inputs=(image.name,), output=converted, scale=image.scale)
    reading = [
        replace(node, inputs=tuple(converted if tensor == image.name else tensor for tensor in node.inputs))
        for node in program.nodes
    ]
    camera = replace(image, scale=(1.0,), source=source)
    return replace(
        program,
        inputs=tuple(camera if each is image else each for each in program.inputs),
        nodes=(conversion, *reading),
        outputs=tuple(
            replace(each, tensor=converted) if each.tensor == image.name else each for each in program.outputs
        ),
        self_test=None,
    )


def _numbered(name: str) -> Iterator[str]:
    return itertools.chain([name], (f"{name}_{number}" for number in itertools.count(1)))


def rgb_to_nv12(images: Tensor) -> NDArray[np.uint8]:
    """Return RGB images as a camera would deliver them: full-swing BT.601, chroma averaged over 2 x 2 pixels.

    Args:
        images: [N, 3, H, W], 0..255, H and W even.

    Returns:
        uint8 [N, H * W * 3 / 2]: luma, then U and V in turn.
    """
    batch, _, height, width = images.shape
    if height % 2 or width % 2:
        raise SurgeryError(f"NV12 needs even height and width, got {height}x{width}")
    yuv = rgb2yuv(images, swing="full")
    chroma = torch.nn.functional.avg_pool2d(yuv[:, 1:], 2).permute(0, 2, 3, 1)
    parts = [yuv[:, 0].reshape(batch, -1), chroma.reshape(batch, -1)]
    return torch.cat(parts, 1).round().clamp(0, 255).to(torch.uint8).numpy()

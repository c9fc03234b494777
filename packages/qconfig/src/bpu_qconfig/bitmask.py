"""Boolean masks packed eight to a byte: what the backward pass keeps of a fake-quantized tensor.

Eight booleans, one byte each, are read as one 64-bit integer; a multiplication moves their bits next to each other. So
packing and unpacking take a few passes over an eighth of the elements, on every device.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["memory_order", "pack_mask", "unpack_mask"]

_GATHER = 0x0102_0408_1020_4080
"""Sum of 2**(56 - 7 i): moves bit 8 i, byte i's lowest, to bit 56 + i, and nothing else to bits 56..63."""
_REPEAT = 0x0101_0101_0101_0101
"""Repeats a byte eight times; also the mask of each byte's lowest bit."""
_DIAGONAL = 0x8040_2010_0804_0201 - (1 << 64)
"""Bit i of byte i, written as the signed 64-bit number."""
_CARRY = 0x7F7F_7F7F_7F7F_7F7F
"""Carries any set bit of a byte into its highest bit; one bit at most is set, so no carry leaves the byte."""


def memory_order(tensor: Tensor) -> list[int]:
    """Return the axes from the largest stride to the smallest: so permuted, a dense tensor is contiguous."""
    strides = tensor.stride()
    return sorted(range(tensor.dim()), key=lambda axis: -strides[axis])


def pack_mask(mask: Tensor, order: list[int]) -> Tensor:
    """Return a bool tensor as uint8, an eighth of its elements, taken in the given order of its axes."""
    flat = mask.permute(order).reshape(-1)
    eights = functional.pad(flat, (0, -flat.numel() % 8)).view(torch.int64)
    return ((eights * _GATHER) >> 56).to(torch.uint8)


def unpack_mask(packed: Tensor, shape: torch.Size, order: list[int]) -> Tensor:
    """Return the bool tensor of a shape that was packed in an order."""
    spread = (packed.to(torch.int64) * _REPEAT).bitwise_and_(_DIAGONAL)
    flat = ((spread + _CARRY) >> 7).bitwise_and_(_REPEAT).view(torch.bool)[: shape.numel()]
    back = sorted(range(len(order)), key=order.__getitem__)
    return flat.reshape([shape[axis] for axis in order]).permute(back)

"""Packed masks: the bits return as they went in, whatever shape and memory format."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bpu_qconfig.bitmask import memory_order, pack_mask, unpack_mask


def test_every_byte_packs_like_numpy_and_returns() -> None:
    bits = np.unpackbits(np.arange(256, dtype=np.uint8), bitorder="little").astype(bool)
    mask = torch.from_numpy(bits)
    packed = pack_mask(mask, [0])
    assert packed.tolist() == list(range(256))
    assert torch.equal(unpack_mask(packed, mask.shape, [0]), mask)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (9,), (2, 3), (2, 3, 5, 7), (0, 4)])
def test_odd_sizes_return(shape: tuple[int, ...]) -> None:
    mask = torch.rand(shape) < 0.5
    order = memory_order(mask)
    packed = pack_mask(mask, order)
    assert packed.numel() == -(-mask.numel() // 8)
    assert torch.equal(unpack_mask(packed, mask.shape, order), mask)


@pytest.mark.parametrize(
    "layout",
    {
        "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
        "transposed": lambda x: x.transpose(1, 3),
        "sliced": lambda x: x[:, ::2],
        "expanded": lambda x: x[:1].expand(4, -1, -1, -1),
    }.items(),
    ids=lambda item: item[0],
)
def test_memory_formats_return(layout: tuple[str, object]) -> None:
    change = layout[1]
    assert callable(change)
    mask: torch.Tensor = change(torch.rand(2, 6, 5, 3) < 0.5)
    order = memory_order(mask)
    assert torch.equal(unpack_mask(pack_mask(mask, order), mask.shape, order), mask)


def test_channels_last_returns_channels_last() -> None:
    mask = (torch.rand(2, 6, 5, 3) < 0.5).contiguous(memory_format=torch.channels_last)
    order = memory_order(mask)
    assert unpack_mask(pack_mask(mask, order), mask.shape, order).is_contiguous(memory_format=torch.channels_last)

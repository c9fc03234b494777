"""The functions of torch that quantized tensors take: those that only move elements, and questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from bpu_fx_fusion import ChannelShuffle
from bpu_kernels.dtypes import qint32

from .errors import QTensorError
from .pixel_moves import channel_shuffle, pixel_shuffle, pixel_unshuffle

__all__ = ["MOVES", "MOVING_MODULES", "QUERIES", "SEQUENCES", "Movement", "moved_axis", "movement"]

MOVES: dict[str, str] = {
    "reshape": "reshape",
    "view": "reshape",
    "flatten": "reshape",
    "unflatten": "reshape",
    "ravel": "reshape",
    "reshape_as": "reshape",
    "view_as": "reshape",
    "squeeze": "reshape",
    "unsqueeze": "reshape",
    "permute": "permute",
    "transpose": "permute",
    "swapaxes": "permute",
    "swapdims": "permute",
    "movedim": "permute",
    "moveaxis": "permute",
    "t": "permute",
    "__getitem__": "slice",
    "getitem": "slice",
    "narrow": "slice",
    "select": "slice",
    "chunk": "slice",
    "split": "slice",
    "unbind": "slice",
    "tensor_split": "slice",
    "index_select": "copies",
    "unfold": "copies",
    "expand": "copies",
    "expand_as": "copies",
    "broadcast_to": "copies",
    "repeat": "copies",
    "tile": "copies",
    "repeat_interleave": "copies",
    "roll": "copies",
    "flip": "copies",
    "fliplr": "copies",
    "flipud": "copies",
    "pixel_shuffle": "several",
    "pixel_unshuffle": "several",
    "native_channel_shuffle": "several",
    "channel_shuffle": "several",
    "contiguous": "same",
    "clone": "same",
    "detach": "same",
    "alias": "same",
    "to": "same",
    "float": "same",
    "cpu": "same",
    "cuda": "same",
}
"""Functions and methods that only move elements -> the kind of movement; scale and type pass through them.

"copies" picks elements axis by axis, some of them more than once; "several" is a sequence of the others (SEQUENCES).
"""

MOVING_MODULES = (
    *(nn.Identity, nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle),
    *(nn.ChannelShuffle, ChannelShuffle),
)
"""Modules that only move elements, and so take quantized tensors as they are."""


def unfold(x: Any, dimension: int, size: int, step: int) -> Any:
    """Windows along an axis: (..., L, ...) -> (..., windows, ..., size)."""
    axis = dimension % len(x.shape)
    lengths = list(x.shape)
    begins = range(0, lengths[axis] - size + 1, step)
    index = torch.tensor([begin + each for begin in begins for each in range(size)], device=x.scale.device)
    y = x.index_select(axis, index).reshape([*lengths[:axis], len(begins), size, *lengths[axis + 1 :]])
    return y.movedim(axis + 1, -1)


SEQUENCES: dict[str, Callable[..., Any]] = {
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "channel_shuffle": channel_shuffle,
    "native_channel_shuffle": channel_shuffle,
    "unfold": unfold,
    "float": lambda x: x,
}
"""Movements that are sequences of simpler ones, or of none: ``float`` makes real numbers of a mask, which it has."""

QUERIES = frozenset(
    {
        *{"__format__", "__hash__", "__len__", "_is_view", "as_subclass", "backward", "data_ptr", "dim"},
        *{"element_size", "get_device", "has_names", "is_complex", "is_contiguous", "is_floating_point"},
        *{"is_inference", "ndimension", "nelement", "numel", "register_hook", "requires_grad_", "retain_grad", "size"},
        *{"storage_offset", "stride", "untyped_storage"},
    }
)
"""Methods that ask about the tensor or its gradient and return no values of it."""


@dataclass(frozen=True)
class Movement:
    """A call of a function in ``MOVES``, taken apart."""

    name: str
    kind: str
    """A value of ``MOVES``."""
    source: Any
    """The quantized tensor that is moved."""
    apply: Callable[[Any], Any]
    """The call as a function of the tensor alone."""
    others: tuple[Any, ...] = ()
    """The other arguments."""

    @property
    def depends(self) -> bool:
        """Whether other quantized tensors say what is moved, as indices can be, and the ends of slices."""
        leaves = tree_leaves(self.others)
        ends = [end for leaf in leaves if isinstance(leaf, slice) for end in (leaf.start, leaf.stop, leaf.step)]
        return any(hasattr(each, "per_channel_axis") for each in (*leaves, *ends))


def movement(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Movement | None:
    """Take a call apart; None if it does more than move elements.

    Raises:
        QTensorError: it would also change the type, as ``x.to(torch.float16)`` does.
    """
    name = getattr(func, "__name__", str(func))
    kind = MOVES.get(name)
    if kind is None:
        return None
    func, args = _like_another(name, func, args)
    first, *rest = (*args, *kwargs.values())
    retypes = [value for value in rest if isinstance(value, torch.dtype) or (name == "to" and hasattr(value, "shape"))]
    if retypes:
        raise QTensorError(
            f"{name} with {getattr(retypes[0], 'dtype', retypes[0])} would change the type of a quantized tensor, to "
            "which its scale belongs; leave the type out, x.to(device) moves it"
        )
    if args:
        return Movement(name, kind, first, lambda tensor: func(tensor, *args[1:], **kwargs), tuple(rest))
    keyword = next(iter(kwargs))
    return Movement(name, kind, first, lambda tensor: func(**{**kwargs, keyword: tensor}), tuple(rest))


def _like_another(name: str, func: Callable[..., Any], args: Sequence[Any]) -> tuple[Callable[..., Any], Sequence[Any]]:
    """Return a call that takes another tensor's shape with the shape itself, and a view as a reshape.

    Which shapes can be had without a copy depends on how a tensor lies in memory, and the engine's lie in another order
    than those of a float model, where the view was possible.
    """
    if name == "view" and len(args) > 1:
        return torch.Tensor.reshape, args
    if name not in ("reshape_as", "view_as", "expand_as") or len(args) != 2:
        return func, args
    named: Callable[..., Any] = torch.Tensor.expand if name == "expand_as" else torch.Tensor.reshape
    return named, (args[0], tuple(int(n) for n in args[1].shape))


def moved_axis(moves: Movement) -> int:
    """Return where the channel axis of a per-channel scale goes.

    Raises:
        QTensorError: the axis does not survive the movement whole.
    """
    source = moves.source
    channels = int(source.scale.numel())
    shape = [1] * len(source.shape)
    shape[source.per_channel_axis] = channels
    moved = moves.apply(torch.arange(channels).reshape(shape).expand(source.shape))
    first = moved[0] if isinstance(moved, (tuple, list)) else moved
    for axis in range(first.dim()):
        if first.shape[axis] == channels:
            along = [1] * first.dim()
            along[axis] = channels
            if torch.equal(first, torch.arange(channels).reshape(along).expand(first.shape)):
                return axis
    raise QTensorError(
        f"{moves.name} splits the channels of a tensor with one scale per channel (a high-precision {qint32} output); "
        "put the DeQuantStub before it"
    )

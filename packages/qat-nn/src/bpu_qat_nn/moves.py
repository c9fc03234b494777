"""The functions of torch that quantized tensors take: those that only move elements, and questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bpu_kernels.dtypes import qint32

from .errors import QTensorError

__all__ = ["MOVES", "MOVING_MODULES", "QUERIES", "Movement", "moved_axis", "movement"]

MOVES: dict[str, str] = {
    "reshape": "reshape",
    "view": "reshape",
    "flatten": "reshape",
    "unflatten": "reshape",
    "squeeze": "reshape",
    "unsqueeze": "reshape",
    "permute": "permute",
    "transpose": "permute",
    "swapaxes": "permute",
    "swapdims": "permute",
    "movedim": "permute",
    "moveaxis": "permute",
    "__getitem__": "slice",
    "getitem": "slice",
    "narrow": "slice",
    "select": "slice",
    "chunk": "slice",
    "split": "slice",
    "unbind": "slice",
    "contiguous": "same",
    "clone": "same",
    "detach": "same",
    "alias": "same",
    "to": "same",
    "cpu": "same",
    "cuda": "same",
}
"""Functions and methods that only move elements -> the kind of movement; scale and type pass through them."""

MOVING_MODULES = (nn.Identity, nn.Flatten, nn.Unflatten)
"""Modules that only move elements, and so take quantized tensors as they are."""

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


def movement(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Movement | None:
    """Take a call apart; None if it does more than move elements.

    Raises:
        QTensorError: it would also change the type, as ``x.to(torch.float16)`` does.
    """
    name = getattr(func, "__name__", str(func))
    kind = MOVES.get(name)
    if kind is None:
        return None
    first, *rest = (*args, *kwargs.values())
    retypes = [value for value in rest if isinstance(value, torch.dtype) or (name == "to" and hasattr(value, "shape"))]
    if retypes:
        raise QTensorError(
            f"{name} with {getattr(retypes[0], 'dtype', retypes[0])} would change the type of a quantized tensor, to "
            "which its scale belongs; leave the type out, x.to(device) moves it"
        )
    if args:
        return Movement(name, kind, first, lambda tensor: func(tensor, *args[1:], **kwargs))
    keyword = next(iter(kwargs))
    return Movement(name, kind, first, lambda tensor: func(**{**kwargs, keyword: tensor}))


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

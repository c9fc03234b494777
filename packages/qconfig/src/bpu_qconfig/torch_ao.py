"""Qconfigs of torch.ao.quantization, translated field by field where the meaning is the same.

The only file that knows torch.ao. It recognises its classes by name, so nothing of torch.ao is imported.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from bpu_kernels.dtypes import quant_dtype
from bpu_kernels.errors import BpuKernelsError

from .errors import InvalidQConfigError
from .fake_quantize import FakeQuantize
from .observers import (
    FixedScaleObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    Observer,
    PerChannelMinMaxObserver,
)
from .qconfig import FakeQuantFactory, QConfig

__all__ = ["qconfig_from_torch"]

_FAKE_QUANTS = ("FakeQuantize", "FusedMovingAvgObsFakeQuantize")

_OBSERVERS: dict[str, type[Observer]] = {
    "MovingAverageMinMaxObserver": MovingAverageMinMaxObserver,
    "MovingAveragePerChannelMinMaxObserver": MovingAveragePerChannelMinMaxObserver,
    "PerChannelMinMaxObserver": PerChannelMinMaxObserver,
    "FixedQParamsObserver": FixedScaleObserver,
}

_NOTHING = ("NoopObserver",)

_SAME = ("averaging_constant", "ch_axis", "dtype", "factory_kwargs", "qscheme", "quant_max", "quant_min", "scale")
"""Fields that mean the same here."""

_NEUTRAL: dict[str, tuple[Any, ...]] = {"reduce_range": (False,), "is_dynamic": (False,), "zero_point": (0,)}
"""Fields that have no counterpart, and the values with which none is needed."""

_DROPPED = ("eps",)
"""Fields that only tune what is done another way here: ranges of zeros."""


def qconfig_from_torch(qconfig: Any) -> QConfig:
    """Translate a ``torch.ao.quantization.QConfig``; factories of this package inside it pass through.

    Observers given without a FakeQuantize get one: whether they only observe is decided by ``set_fake_quantize``.

    Raises:
        InvalidQConfigError: a class or a field without counterpart; the message names it.
    """
    return QConfig(activation=_translate("activation", qconfig.activation), weight=_translate("weight", qconfig.weight))


def _translate(part: str, factory: Any) -> FakeQuantFactory | None:
    cls, fields = _unwrap(factory)
    if cls is None or cls is nn.Identity or (_is_torch(cls) and cls.__name__ in _NOTHING):
        return None
    if isinstance(factory, nn.Module) or not _is_torch(cls):
        return QConfig(activation=factory, weight=None).activation  # ours, or refused there
    if cls.__name__ in _FAKE_QUANTS:
        cls, inner = _unwrap(fields.pop("observer", None))
        fields = {**inner, **fields}
    name = getattr(cls, "__name__", repr(cls))
    if name not in _OBSERVERS:
        raise InvalidQConfigError(
            f"{part}: torch.ao's {name} has no counterpart; known are {', '.join((*_FAKE_QUANTS, *_OBSERVERS))}. "
            "Use an observer of bpu_qconfig instead"
        )
    return FakeQuantize.with_args(observer=_OBSERVERS[name], **_fields(part, name, fields))


def _unwrap(factory: Any) -> tuple[Any, dict[str, Any]]:
    """Return the class that a factory makes and its keyword arguments; torch's wrapper keeps its partial in ``p``."""
    partial = getattr(factory, "p", factory)
    if isinstance(partial, functools.partial):
        return partial.func, dict(partial.keywords)
    return partial, {}


def _is_torch(cls: Any) -> bool:
    return str(getattr(cls, "__module__", "")).startswith("torch.ao.quantization")


def _fields(part: str, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    translated: dict[str, Any] = {}
    for field, value in fields.items():
        if field in _SAME:
            translated[field] = value
        elif field not in _DROPPED and value not in _NEUTRAL.get(field, ()):
            raise InvalidQConfigError(f"{part}: {name}({field}={value!r}) of torch.ao has no counterpart; leave it out")
    # What is not given is quint8 and affine in torch.
    try:
        translated["dtype"] = quant_dtype(translated.get("dtype", torch.quint8))
    except BpuKernelsError as error:
        raise InvalidQConfigError(f"{part}: {name} of torch.ao: {error}; give dtype=torch.qint8") from None
    if translated.get("qscheme") not in (torch.per_tensor_symmetric, torch.per_channel_symmetric):
        got = translated.get("qscheme", "an affine one")
        raise InvalidQConfigError(
            f"{part}: {name} of torch.ao: expected a symmetric qscheme, got {got}; "
            "give qscheme=torch.per_tensor_symmetric (weights: torch.per_channel_symmetric)"
        )
    return translated

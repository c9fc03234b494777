"""QConfig: how activations and weights of a module are quantized."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from .errors import InvalidQConfigError
from .fake_quantize import FakeQuantize
from .observers import Observer

__all__ = ["FakeQuantFactory", "QConfig", "as_qconfig"]

FakeQuantFactory = Callable[..., FakeQuantize]
"""A class derived from FakeQuantize, or what its ``with_args`` returns."""


@dataclass(frozen=True)
class QConfig:
    """A pair of factories; each makes one fake quantizer per call.

    None instead of a factory leaves that part in high precision: without activation the output of a convolution is
    int32.

    Args:
        activation: factory for outputs.
        weight: factory for weights.

    Raises:
        InvalidQConfigError: an instance, an observer or something else was given instead of a factory.
    """

    activation: FakeQuantFactory | None
    weight: FakeQuantFactory | None

    def __post_init__(self) -> None:
        for part in ("activation", "weight"):
            complaint = _complaint(getattr(self, part))
            if complaint is not None:
                raise InvalidQConfigError(
                    f"QConfig {part}: expected a factory such as FakeQuantize.with_args(...), or None; got {complaint}"
                )


def _complaint(factory: object) -> str | None:
    """What is wrong with a part of a QConfig, if anything."""
    made = factory.func if isinstance(factory, functools.partial) else factory
    if isinstance(made, nn.Module):
        return f"an instance of {type(made).__name__}, which all modules would share; give the class or its with_args"
    if isinstance(made, type) and issubclass(made, Observer):
        return f"the observer {made.__name__}; wrap it: FakeQuantize.with_args(observer={made.__name__})"
    if made is None or callable(made):
        return None
    return f"{made!r}"


def as_qconfig(value: Any) -> QConfig | None:
    """Return a QConfig for what users write: a QConfig, None, or a ``torch.ao.quantization.QConfig``.

    Raises:
        InvalidQConfigError: anything else, or a part of torch's that has no counterpart here.
    """
    if value is None or isinstance(value, QConfig):
        return value
    if hasattr(value, "activation") and hasattr(value, "weight"):
        from .torch_ao import qconfig_from_torch

        return qconfig_from_torch(value)
    raise InvalidQConfigError(f"expected a QConfig or None, got {value!r}")

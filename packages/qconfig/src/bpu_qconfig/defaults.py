"""The predefined qconfigs, and the functions that build such ones from names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .errors import InvalidQConfigError
from .fake_quantize import FakeQuantize
from .learned import LearnableFakeQuantize, PACTFakeQuantize
from .observers import (
    ClipObserver,
    ClipStdObserver,
    FixedScaleObserver,
    KLObserver,
    MixObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    MSEObserver,
    Observer,
    PercentileObserver,
)
from .partial import Partial
from .qconfig import QConfig

__all__ = [
    "FAKE_QUANTS",
    "OBSERVERS",
    "default_8bit_fake_quant",
    "default_calib_8bit_fake_quant_qconfig",
    "default_calib_8bit_weight_16bit_act_fake_quant_qconfig",
    "default_calib_8bit_weight_32bit_out_fake_quant_qconfig",
    "default_calib_out_8bit_fake_quant_qconfig",
    "default_qat_8bit_fake_quant_qconfig",
    "default_qat_8bit_lsq_quant_qconfig",
    "default_qat_8bit_weight_16bit_act_fake_quant_qconfig",
    "default_qat_8bit_weight_32bit_out_fake_quant_qconfig",
    "default_qat_out_8bit_fake_quant_qconfig",
    "default_weight_8bit_fake_quant",
    "get_default_calib_qconfig",
    "get_default_qat_out_qconfig",
    "get_default_qat_qconfig",
    "get_default_qconfig",
    "per_channel_qat_8bit_qconfig",
]

FAKE_QUANTS: dict[str, type[FakeQuantize]] = {
    "fake_quant": FakeQuantize,
    "lsq": LearnableFakeQuantize,
    "pact": PACTFakeQuantize,
}
"""Names of fake quantizers."""

OBSERVERS: dict[str, type[Observer]] = {
    "min_max": MovingAverageMinMaxObserver,
    "fixed_scale": FixedScaleObserver,
    "clip": ClipObserver,
    "percentile": PercentileObserver,
    "clip_std": ClipStdObserver,
    "mse": MSEObserver,
    "kl": KLObserver,
    "mix": MixObserver,
}
"""Names of observers."""

_PER_CHANNEL: dict[str, type[Observer]] = {"min_max": MovingAveragePerChannelMinMaxObserver}
"""Those that are another class where the scheme is per channel."""

_ACTIVATION_OBSERVERS = tuple(OBSERVERS)
_WEIGHT_OBSERVERS = ("min_max", "fixed_scale", "clip", "percentile", "clip_std", "mse")

_PER_CHANNEL_WEIGHT = {"qscheme": torch.per_channel_symmetric, "ch_axis": 0}


def get_default_qconfig(
    activation_fake_quant: str | None = "fake_quant",
    weight_fake_quant: str | None = "fake_quant",
    activation_observer: str | None = "min_max",
    weight_observer: str | None = "min_max",
    activation_qkwargs: Mapping[str, Any] | None = None,
    weight_qkwargs: Mapping[str, Any] | None = None,
) -> QConfig:
    """Build a QConfig from names.

    Args:
        activation_fake_quant: "fake_quant", "lsq", "pact", or None for outputs in high precision.
        weight_fake_quant: the same for weights.
        activation_observer: "min_max", "fixed_scale", "clip", "percentile", "clip_std", "mse", "kl" or "mix".
        weight_observer: "min_max", "fixed_scale", "clip", "percentile", "clip_std" or "mse".
        activation_qkwargs: arguments of fake quantizer and observer, such as dtype, scale, averaging_constant,
            use_grad_scaling; "observer" may hold a class, which then replaces the named one.
        weight_qkwargs: the same for weights, which are per channel on axis 0 unless it says otherwise.

    Raises:
        InvalidQConfigError: an unknown name; the message lists those that exist.
    """
    return QConfig(
        activation=_factory(
            "activation", activation_fake_quant, activation_observer, _ACTIVATION_OBSERVERS, activation_qkwargs or {}
        ),
        weight=_factory(
            "weight",
            weight_fake_quant,
            weight_observer,
            _WEIGHT_OBSERVERS,
            {**_PER_CHANNEL_WEIGHT, **(weight_qkwargs or {})},
        ),
    )


def _factory(
    part: str, fake_quant: str | None, observer: str | None, observers: tuple[str, ...], qkwargs: Mapping[str, Any]
) -> Partial | None:
    if fake_quant is None:
        return None
    if fake_quant not in FAKE_QUANTS:
        raise InvalidQConfigError(f"{part}_fake_quant: expected one of {[*FAKE_QUANTS, None]}, got {fake_quant!r}")
    if "observer" in qkwargs:
        return FAKE_QUANTS[fake_quant].with_args(**qkwargs)
    if observer not in observers:
        raise InvalidQConfigError(
            f"{part}_observer: expected one of {list(observers)}, got {observer!r}; "
            f"any observer class can be given as {part}_qkwargs={{'observer': ...}}"
        )
    per_channel = qkwargs.get("qscheme") == torch.per_channel_symmetric
    chosen = _PER_CHANNEL.get(observer, OBSERVERS[observer]) if per_channel else OBSERVERS[observer]
    return FAKE_QUANTS[fake_quant].with_args(observer=chosen, **qkwargs)


default_8bit_fake_quant = FakeQuantize.with_args(observer=MovingAverageMinMaxObserver, dtype="qint8")
default_weight_8bit_fake_quant = FakeQuantize.with_args(
    observer=MovingAveragePerChannelMinMaxObserver, dtype="qint8", **_PER_CHANNEL_WEIGHT
)
per_channel_qat_8bit_qconfig = QConfig(activation=default_8bit_fake_quant, weight=default_weight_8bit_fake_quant)

default_qat_8bit_fake_quant_qconfig = get_default_qconfig()
default_qat_out_8bit_fake_quant_qconfig = get_default_qconfig(activation_fake_quant=None, activation_observer=None)
default_qat_8bit_weight_32bit_out_fake_quant_qconfig = default_qat_out_8bit_fake_quant_qconfig
default_qat_8bit_weight_16bit_act_fake_quant_qconfig = get_default_qconfig(activation_qkwargs={"dtype": "qint16"})
default_qat_8bit_lsq_quant_qconfig = get_default_qconfig(
    "lsq",
    "lsq",
    activation_qkwargs={"use_grad_scaling": True, "averaging_constant": 1.0},
    weight_qkwargs={"use_grad_scaling": True, "averaging_constant": 1.0},
)

default_calib_8bit_fake_quant_qconfig = get_default_qconfig(activation_observer="percentile")
default_calib_out_8bit_fake_quant_qconfig = default_qat_out_8bit_fake_quant_qconfig
default_calib_8bit_weight_32bit_out_fake_quant_qconfig = default_qat_out_8bit_fake_quant_qconfig
default_calib_8bit_weight_16bit_act_fake_quant_qconfig = get_default_qconfig(
    activation_observer="percentile", activation_qkwargs={"dtype": "qint16"}
)


def get_default_qat_qconfig(
    dtype: object = "qint8",
    weight_dtype: object = "qint8",
    activation_fake_quant: str | None = "fake_quant",
    weight_fake_quant: str | None = "fake_quant",
    activation_qkwargs: Mapping[str, Any] | None = None,
    weight_qkwargs: Mapping[str, Any] | None = None,
    backend: str = "",
    *,
    bits: int | None = None,
) -> QConfig:
    """Build a min-max QConfig for training, by the older documented signatures.

    The oldest one is ``(bits=8, backend="")``: a number as first argument, or ``bits``, is a width, and the text after
    it the backend. ``backend`` has no effect.
    """
    if bits is None and isinstance(dtype, int):
        bits, weight_dtype = dtype, "qint8"
    return get_default_qconfig(
        activation_fake_quant,
        weight_fake_quant,
        activation_qkwargs={"dtype": dtype if bits is None else f"qint{bits}", **(activation_qkwargs or {})},
        weight_qkwargs={"dtype": weight_dtype, **(weight_qkwargs or {})},
    )


def get_default_qat_out_qconfig(
    dtype: object = "qint8",
    weight_fake_quant: str | None = "fake_quant",
    weight_qkwargs: Mapping[str, Any] | None = None,
    backend: str = "",
) -> QConfig:
    """Build a QConfig with outputs in high precision; ``dtype`` is that of the weights, ``backend`` has no effect."""
    return get_default_qconfig(None, weight_fake_quant, None, weight_qkwargs={"dtype": dtype, **(weight_qkwargs or {})})


def get_default_calib_qconfig(
    dtype: object = "qint8", calib_qkwargs: Mapping[str, Any] | None = None, backend: str = ""
) -> QConfig:
    """Build a QConfig for calibration: percentiles of the activations, which ``calib_qkwargs`` tunes or replaces.

    ``dtype`` is that of the activations; ``backend`` has no effect.
    """
    return get_default_qconfig(
        activation_observer="percentile", activation_qkwargs={"dtype": dtype, **(calib_qkwargs or {})}
    )

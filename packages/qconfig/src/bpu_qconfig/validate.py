"""Whether a march can run what a qconfig asks for; every objection is data with a way out."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from bpu_kernels.dtypes import QuantDType, qint8, quant_dtype
from bpu_kernels.errors import BpuKernelsError
from bpu_kernels.march import March, march_row

from .errors import InvalidQConfigError
from .qconfig import QConfig
from .scale import positive_scale

__all__ = ["Problem", "check_qconfig_for_march"]

_SYMMETRIC = {torch.per_tensor_symmetric: "per tensor", torch.per_channel_symmetric: "per channel"}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that the march cannot do."""

    what: str
    """Part and field of the qconfig, such as ``"weight dtype"``."""
    expected: str
    """What the march can do."""
    got: str
    """What was asked for."""
    way_out: str
    """What to write instead."""

    def __str__(self) -> str:
        return f"{self.what}: expected {self.expected}, got {self.got}; {self.way_out}"


def check_qconfig_for_march(qconfig: QConfig | None, march: March | str) -> list[Problem]:
    """Return everything in a qconfig that a march cannot run; nothing is made or changed.

    Checked are the dtypes (weights int8; activations int16 on Bayes only), the limits of the integers, that schemes are
    symmetric, per tensor for activations and per tensor or per channel on axis 0 for weights, and that fixed scales are
    positive.

    Raises:
        bpu_kernels.errors.UnsupportedError: an unknown march.
    """
    row = march_row(march)
    if qconfig is None:
        return []
    problems: list[Problem] = []
    if qconfig.activation is not None:
        asked = _arguments(qconfig.activation)
        problems += _check_dtype("activation", asked, row.activations, f"on {row.march}")
        problems += _check_activation_scheme(asked)
        problems += _check_values("activation", asked)
    if qconfig.weight is not None:
        asked = _arguments(qconfig.weight)
        problems += _check_dtype("weight", asked, (qint8,), "for weights on every march")
        problems += _check_weight_scheme(asked)
        problems += _check_values("weight", asked)
    return problems


def _arguments(factory: Any) -> dict[str, Any]:
    """The arguments that a factory gives: defaults of the observer, then its own, then those of the fake quantizer.

    The factory is not called, since it would stop at its first problem; only one that hides its arguments, a plain
    function, is, and then the made module is asked.
    """
    made, keywords = _split(factory)
    if not isinstance(made, type):
        fake = made(**keywords)
        return {name: getattr(fake, name) for name in ("dtype", "qscheme", "ch_axis", "quant_min", "quant_max")}
    given = {**_defaults(made), **keywords}
    observer, observer_keywords = _split(given["observer"])
    return {**_defaults(observer), **observer_keywords, **given}


def _split(factory: Any) -> tuple[Any, dict[str, Any]]:
    if isinstance(factory, functools.partial):
        return factory.func, dict(factory.keywords)
    return factory, {}


def _defaults(cls: Any) -> dict[str, Any]:
    parameters = inspect.signature(cls).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}


def _check_dtype(part: str, asked: dict[str, Any], allowed: tuple[QuantDType, ...], where: str) -> Iterator[Problem]:
    if _dtype(asked) not in allowed:
        names = " or ".join(map(str, allowed))
        yield Problem(
            what=f"{part} dtype",
            expected=f"{names} {where}",
            got=str(asked["dtype"]),
            way_out=f'give dtype="{allowed[0]}"',
        )


def _check_activation_scheme(asked: dict[str, Any]) -> Iterator[Problem]:
    if _SYMMETRIC.get(asked["qscheme"]) != "per tensor":
        yield Problem(
            what="activation qscheme",
            expected="symmetric and per tensor",
            got=str(asked["qscheme"]),
            way_out="give qscheme=torch.per_tensor_symmetric",
        )


def _check_weight_scheme(asked: dict[str, Any]) -> Iterator[Problem]:
    scheme = _SYMMETRIC.get(asked["qscheme"])
    if scheme is None:
        yield Problem(
            what="weight qscheme",
            expected="a symmetric one",
            got=str(asked["qscheme"]),
            way_out="give qscheme=torch.per_channel_symmetric",
        )
    elif scheme == "per channel" and asked["ch_axis"] != 0:
        yield Problem(
            what="weight ch_axis",
            expected="0, the output channels",
            got=str(asked["ch_axis"]),
            way_out="give ch_axis=0, or qscheme=torch.per_tensor_symmetric",
        )


def _check_values(part: str, asked: dict[str, Any]) -> Iterator[Problem]:
    dtype = _dtype(asked)
    if dtype is not None:
        low = dtype.min if asked["quant_min"] is None else asked["quant_min"]
        high = dtype.max if asked["quant_max"] is None else asked["quant_max"]
        if not dtype.min <= low < 0 < high <= dtype.max:
            yield Problem(
                what=f"{part} quant_min, quant_max",
                expected=f"{dtype.min} <= quant_min < 0 < quant_max <= {dtype.max} for {dtype}",
                got=f"{low}, {high}",
                way_out="leave them out",
            )
    if "scale" in asked:
        try:
            positive_scale(asked["scale"])
        except InvalidQConfigError:
            yield Problem(
                what=f"{part} scale",
                expected="a positive finite number",
                got=str(asked["scale"]),
                way_out="give the real size of one step, such as 1 / 128",
            )


def _dtype(asked: dict[str, Any]) -> QuantDType | None:
    try:
        return quant_dtype(asked["dtype"])
    except BpuKernelsError:
        return None

"""The three states of a prepared model, and carrying what was observed from one model to another."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from enum import Enum

from torch import nn

from .errors import FakeQuantStateWarning, InvalidQConfigError
from .fake_quantize import FakeQuantize

__all__ = ["FakeQuantState", "ObserverCopy", "load_observer_params", "set_fake_quantize"]


class FakeQuantState(str, Enum):
    """What the fake quantizers of a model do.

    ============  =======  =============  ==============
    state         observe  fake-quantize  call before it
    ============  =======  =============  ==============
    QAT           yes      yes            model.train()
    CALIBRATION   yes      no             model.eval()
    VALIDATION    no       yes            model.eval()
    ============  =======  =============  ==============
    """

    QAT = "qat"
    CALIBRATION = "calibration"
    VALIDATION = "validation"

    @classmethod
    def _missing_(cls, value: object) -> FakeQuantState:
        names = ", ".join(repr(state.value) for state in cls)
        raise InvalidQConfigError(f"expected a FakeQuantState or one of {names}, got {value!r}")


_OBSERVES = {FakeQuantState.QAT: True, FakeQuantState.CALIBRATION: True, FakeQuantState.VALIDATION: False}
_QUANTIZES = {FakeQuantState.QAT: True, FakeQuantState.CALIBRATION: False, FakeQuantState.VALIDATION: True}
_TRAINS = {FakeQuantState.QAT: True, FakeQuantState.CALIBRATION: False, FakeQuantState.VALIDATION: False}


def set_fake_quantize(model: nn.Module, state: FakeQuantState | str) -> None:
    """Put every fake quantizer of a model into a state; nothing else changes it later, ``train`` and ``eval`` neither.

    It also gives observers that have no path yet their path in ``model``, for error messages, and lets them refuse bad
    batches on a GPU at once in calibration only, since that synchronises.

    Args:
        model: a prepared model.
        state: a member of ``FakeQuantState`` or its value.

    Warns:
        FakeQuantStateWarning: the model is in the wrong mode for this state, or has no fake quantizers.
    """
    state = FakeQuantState(state)
    found = False
    for path, module in model.named_modules():
        if isinstance(module, FakeQuantize):
            found = True
            module.enable_observer(_OBSERVES[state])
            module.enable_fake_quant(_QUANTIZES[state])
            observer = module.activation_post_process
            observer.strict = state is FakeQuantState.CALIBRATION
            if observer.path == "<unnamed>":
                observer.path = path
    if not found:
        _warn(f"the model has no fake quantizers, so {state.name} changes nothing; prepare it first")
    elif model.training is not _TRAINS[state]:
        mode, actual = ("train", "eval") if _TRAINS[state] else ("eval", "train")
        _warn(f"{state.name} was set on a model in {actual} mode; call model.{mode}() before set_fake_quantize")


@dataclass(frozen=True, kw_only=True)
class ObserverCopy:
    """What ``load_observer_params`` did; prints as a list."""

    copied: tuple[str, ...]
    """Paths of the fake quantizers that took over scale and range."""
    skipped: tuple[tuple[str, str], ...]
    """Paths of the others, each with its reason."""

    def __str__(self) -> str:
        lines = [f"copied {len(self.copied)}, left {len(self.skipped)} as they were"]
        return "\n".join(lines + [f"  {path}: {reason}" for path, reason in self.skipped])


def load_observer_params(src: nn.Module, dst: nn.Module) -> ObserverCopy:
    """Copy scales and ranges between the fake quantizers that have the same path in both models.

    The kinds may differ: a calibrated model starts one that learns its scales, and back. Between qint8 and qint16 the
    range is kept and the scale follows from it. Fixed scales of ``dst`` stay.

    Returns:
        what was copied, and what was not and why.
    """
    sources = {path: module for path, module in src.named_modules() if isinstance(module, FakeQuantize)}
    copied: list[str] = []
    skipped: list[tuple[str, str]] = []
    for path, target in dst.named_modules():
        if isinstance(target, FakeQuantize):
            reason = _copy(sources.get(path), target)
            if reason is None:
                copied.append(path)
            else:
                skipped.append((path, reason))
    return ObserverCopy(copied=tuple(copied), skipped=tuple(skipped))


def _copy(source: FakeQuantize | None, target: FakeQuantize) -> str | None:
    """Copy one; or return why not."""
    if source is None:
        return "the source has no fake quantizer of this path"
    if target.fixed:
        return f"its scale is fixed at {target.scale.tolist()}"
    if not source.activation_post_process.observed:
        return "nothing has been observed in the source"
    source_channels, target_channels = source.scale.numel(), target.scale.numel()
    adapts = not source.is_per_channel or (target.is_per_channel and target_channels == 1)
    if source_channels != target_channels and not adapts:
        return f"the source has {source_channels} channels, it has {target_channels}"
    source_steps, target_steps = (fake.quant_max - fake.quant_min for fake in (source, target))
    if source_steps == target_steps and source.is_per_channel == target.is_per_channel:
        target.load_state_dict(source.state_dict())
    else:
        target.set_qparams(source.scale.detach() * (source_steps / target_steps))
    return None


def _warn(message: str) -> None:
    warnings.warn(message, FakeQuantStateWarning, stacklevel=3)

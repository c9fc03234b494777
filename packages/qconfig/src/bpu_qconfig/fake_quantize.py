"""FakeQuantize: rounds a tensor to the integers of its scale, and lets gradients through as if it had not."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from bpu_kernels.dtypes import QuantDType

from .errors import InvalidQConfigError
from .followed_range import follow_natively
from .observers import MovingAverageMinMaxObserver, Observer
from .partial import WithArgs
from .scale import positive_scale, scale_from_amplitude
from .state_tensors import StateTensors
from .straight_through import clipped, dequantize, passed, widened
from .switches import Switches

__all__ = ["FakeQuantize"]


class FakeQuantize(Switches, WithArgs, StateTensors):
    """Observes a tensor, and replaces it by ``clamp(round(x / scale), quant_min, quant_max) * scale``.

    Rounding is half to even; the zero point is 0. ``forward`` does it all; ``observe``, ``quantize`` and
    ``straight_through`` are its parts, for callers who compute the integers by another rule and need the gradient only.

    ``fake_quant_enabled`` and ``observer_enabled`` switch the parts (``Switches``); ``set_fake_quantize`` sets them for
    a whole model.

    Args:
        observer: class (or ``with_args`` of one) that finds the range.
        saturate: with None or True the gradient is 0 for values outside
            ``[(quant_min - 0.5) * scale, (quant_max + 0.5) * scale]``; with False it passes everywhere.
        in_place: write the result over ``x`` where no gradient is recorded, x is no parameter, and its dtype is float32
            or float64.
        compat_mask: keep the mask of the gradient in bits instead of bytes.
        channel_len: number of channels if the observer is per channel, otherwise without meaning. Left at 1, it becomes
            the number of channels of the first tensor or checkpoint.
        observer_kwargs: arguments of the observer.

    Raises:
        InvalidQConfigError: the observer does not take these arguments.
    """

    channel_tensors: ClassVar[tuple[str, ...]] = ("scale", "zero_point")

    scale: Tensor
    """float32, [1] or [channels], positive; 1 until something is observed."""
    zero_point: Tensor
    """int64 zeros of the same shape."""
    activation_post_process: Observer
    """The observer."""

    def __init__(
        self,
        observer: Callable[..., Observer] = MovingAverageMinMaxObserver,
        saturate: bool | None = None,
        in_place: bool = False,
        compat_mask: bool = True,
        channel_len: int = 1,
        **observer_kwargs: Any,
    ) -> None:
        super().__init__()
        self.activation_post_process = _build(observer, observer_kwargs)
        self.is_per_channel = self.activation_post_process.is_per_channel
        self.saturate = saturate
        self.in_place = in_place
        self.compat_mask = compat_mask
        self.reset_switches()

        scale, zero_point = self.activation_post_process.calculate_qparams()
        self.register_scale(scale)
        self.register_buffer("zero_point", zero_point)
        if self.is_per_channel and channel_len != 1:
            self.activation_post_process.fit_channels(channel_len)
            self.fit_channels(channel_len)

    def register_scale(self, scale: Tensor) -> None:
        """Register ``scale`` with its first value; once, by the constructor."""
        self.register_buffer("scale", scale)

    @property
    def dtype(self) -> QuantDType:
        """Quantized type."""
        return self.activation_post_process.dtype

    @property
    def quant_min(self) -> int:
        """Smallest integer."""
        return self.activation_post_process.quant_min

    @property
    def quant_max(self) -> int:
        """Largest integer."""
        return self.activation_post_process.quant_max

    @property
    def qscheme(self) -> torch.qscheme:
        """``torch.per_tensor_symmetric`` or ``torch.per_channel_symmetric``."""
        return self.activation_post_process.qscheme

    @property
    def ch_axis(self) -> int:
        """Axis of the channels; -1 if per tensor."""
        return self.activation_post_process.ch_axis

    @property
    def fixed(self) -> bool:
        """Whether the scale was given; then it is neither observed nor learned."""
        return self.activation_post_process.fixed

    def forward(self, x: Tensor) -> Tensor:
        """Observe, if that is enabled; return ``x`` fake-quantized, if that is enabled, else ``x`` itself."""
        self.observe(x)
        if not self.fake_quant_enabled:
            return x
        if self.in_place and self._may_overwrite(x):
            scale = self._along(x, self.scale)
            return x.div_(scale).round_().clamp_(self.quant_min, self.quant_max).mul_(scale)
        return self.straight_through(x, self.quantize(x))

    def observe(self, x: Tensor) -> None:
        """Feed the observer, if it is enabled, and take the scale of the range it then holds.

        The scale changes only where the range does: with an averaging constant of 0 it stays exactly as it was
        calibrated, loaded or set.
        """
        if self.observer_enabled and not self.fixed:
            observer = self.activation_post_process
            if type(self) is FakeQuantize and follow_natively(observer, self.scale, x.detach()):
                return
            before = observer.amplitude()
            observer(x)
            if self.is_per_channel:
                self.fit_channels(observer.min_val.numel())
            after = observer.amplitude()
            self.follow_range(self.takes_range(before, after), after)

    def takes_range(self, before: Tensor, after: Tensor) -> Tensor:
        """Return where the scale follows the observer; both are its largest |x|, infinite where nothing is known."""
        return after != before

    def follow_range(self, where: Tensor, amplitude: Tensor) -> None:
        """Take the scale of ``[-amplitude, amplitude]``, [] or [channels], where told."""
        self.store_scale(torch.where(where, self._scale_of(amplitude), self.scale.detach()))

    def store_scale(self, scale: Tensor) -> None:
        """Overwrite the scale in place."""
        self.scale.data.copy_(scale)

    def quantize(self, x: Tensor) -> Tensor:
        """Return ``clamp(round(x / scale), quant_min, quant_max)``, rounding half to even, in x's dtype; no gradient.

        Half-precision values are divided in float32.

        Raises:
            InvalidQConfigError: the dtype of x cannot hold all integers (bfloat16 and float16 with qint16).
        """
        exact_up_to = 2.0 / torch.finfo(x.dtype).eps
        if -self.quant_min > exact_up_to:
            raise InvalidQConfigError(
                f"{x.dtype} holds integers up to {exact_up_to:.0f} only, {self.dtype} needs {-self.quant_min}; "
                "give float32 (inside autocast: x.float())"
            )
        with torch.no_grad():
            quotient = widened(x) / self._along(x, self.scale)
            return quotient.round_().clamp_(self.quant_min, self.quant_max).to(x.dtype)

    def straight_through(self, x: Tensor, q: Tensor) -> Tensor:
        """Return exactly ``q * scale``, with the gradient that quantizing ``x`` has.

        Args:
            x: what was quantized.
            q: its integers, by whatever rule, as a floating tensor of the same shape.
        """
        scale = self._along(x, self.scale)
        if not (torch.is_grad_enabled() and x.requires_grad):
            return dequantize(q, scale, x.dtype)
        if self.saturate is False:
            return passed(x, q, scale)
        return clipped(x, q, scale, *self._range(scale), pack=self.compat_mask)

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Return copies of the scale (float32) and the zero point (int64) in force, each [1] or [channels]."""
        return self.scale.detach().clone(), self.zero_point.clone()

    def set_qparams(
        self, scale: float | Sequence[float] | Tensor, zero_point: int | Sequence[int] | Tensor | None = None
    ) -> None:
        """Set the scale, and give the observer its range, from which later observation goes on.

        So it stays exactly with an averaging constant of 0, moves slowly away with a small one, and is replaced by the
        next batch with 1. A fixed scale is fixed to the new value. A learned one goes on being learned from there.

        Args:
            scale: positive; one value, or one per channel.
            zero_point: None or zeros.

        Raises:
            InvalidQConfigError: another value, or another number of channels.
        """
        if zero_point is not None and torch.as_tensor(zero_point).any():
            raise InvalidQConfigError(f"expected zero_point 0, got {zero_point}; the BPU is symmetric")
        given = positive_scale(scale).to(self.scale.device)
        if given.numel() == 1:
            given = given.expand(self.scale.numel())
        elif self.is_per_channel:
            self.fit_channels(given.numel())
        else:
            raise InvalidQConfigError(f"expected one scale for the whole tensor, got {given.numel()}")
        with torch.no_grad():
            self.activation_post_process.set_scale(given)
            self.store_scale(given)

    def extra_repr(self) -> str:
        """Show the state in the documented order."""
        return (
            f"fake_quant_enabled={self.fake_quant_enabled}, observer_enabled={self.observer_enabled}, "
            f"quant_min={self.quant_min}, quant_max={self.quant_max}, dtype={self.dtype}, qscheme={self.qscheme}, "
            f"ch_axis={self.ch_axis}, scale={self.scale.detach()}, zero_point={self.zero_point}"
        )

    def _may_overwrite(self, x: Tensor) -> bool:
        exact = x.dtype in (torch.float32, torch.float64)
        learns = torch.is_grad_enabled() and bool(self._parameters)
        return exact and not learns and not x.requires_grad and not isinstance(x, torch.nn.Parameter)

    def _scale_of(self, amplitude: Tensor) -> Tensor:
        return scale_from_amplitude(amplitude, self.quant_min, self.quant_max)

    def _range(self, scale: Tensor) -> tuple[Tensor, Tensor]:
        """The values that round into the range of the integers."""
        scale = scale.detach()
        return (self.quant_min - 0.5) * scale, (self.quant_max + 0.5) * scale

    def _along(self, x: Tensor, values: Tensor) -> Tensor:
        """View [1] or [channels] so that it broadcasts along the channels of x."""
        if not self.is_per_channel:
            return values.reshape(())
        if values.numel() != x.shape[self.ch_axis]:
            raise InvalidQConfigError(
                f"expected {values.numel()} channels on axis {self.ch_axis}, got a tensor of shape {list(x.shape)}; "
                "give the number of channels as channel_len, and check ch_axis"
            )
        shape = [1] * x.dim()
        shape[self.ch_axis] = values.numel()
        return values.reshape(shape)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if "alpha" not in self.channel_tensors:  # PACT's clipping value says the same as its scale
            state_dict.pop(prefix + "alpha", None)
        before = self.scale.detach().clone()
        super()._load_from_state_dict(state_dict, prefix, *args)
        refusal = self._refusal(before)
        if refusal is not None:
            error_msgs: list[str] = args[-1]
            error_msgs.append(f"{prefix}{refusal}")
            self.zero_point.zero_()
            self.store_scale(before)

    def _refusal(self, before: Tensor) -> str | None:
        """Why what was just loaded cannot be used, if so."""
        loaded = self.scale.detach()
        if self.zero_point.any():
            return f"zero_point: expected 0, the checkpoint has {self.zero_point.tolist()}; the BPU is symmetric"
        if not bool((torch.isfinite(loaded) & (loaded > 0)).all()):
            return f"scale: expected a positive finite scale, the checkpoint has {loaded.tolist()}"
        if self.fixed and not torch.equal(before, loaded):
            return (
                f"scale: fixed at {before.tolist()}, the checkpoint has {loaded.tolist()}; "
                "load_observer_params leaves fixed scales as they are"
            )
        return None


def _build(observer: Callable[..., Observer], arguments: dict[str, Any]) -> Observer:
    try:
        inspect.signature(observer).bind(**arguments)
    except TypeError as error:
        name = getattr(observer, "__name__", repr(observer))
        raise InvalidQConfigError(f"{name}: {error}; it takes {inspect.signature(observer)}") from None
    built = observer(**arguments)
    if not isinstance(built, Observer):
        raise InvalidQConfigError(f"expected an observer class derived from bpu_qconfig.Observer, got {observer!r}")
    return built

"""Fake quantizers whose scale is trained: LSQ learns the step, PACT the clipping value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .fake_quantize import FakeQuantize
from .observers import MovingAverageMinMaxObserver, Observer
from .scale import SMALLEST_SCALE, amplitude_from_scale
from .straight_through import dequantize, learned_clip, learned_step

__all__ = ["LearnableFakeQuantize", "PACTFakeQuantize"]


class _Learned(FakeQuantize):
    """What both have in common.

    - Until a range is known (from a batch, a checkpoint or ``set_qparams``) the first observed batch sets the start
      value. After that observation moves the value only in calibration, that is while fake quantization is disabled;
      in training the observer goes on watching, so that the ranges in a checkpoint are those of the trained model.
    - The value is raised to the smallest positive one whenever ``scale`` is read: by this class, by a caller, by
      ``state_dict``. An optimizer's step may take the parameter below zero, but nobody ever sees such a scale. The zero
      point is no parameter.
    - A fixed scale (``FixedScaleObserver``) is a buffer, and no gradient reaches it.
    - Ranges are reduced over all ranks unless ``is_sync_quantize=False`` is given: every rank must start from the same
      value, since only gradients are averaged afterwards.
    """

    def __init__(
        self,
        observer: Callable[..., Observer] = MovingAverageMinMaxObserver,
        saturate: bool | None = None,
        in_place: bool = False,
        compat_mask: bool = True,
        channel_len: int = 1,
        **observer_kwargs: Any,
    ) -> None:
        super().__init__(observer, saturate, in_place, compat_mask, channel_len, **observer_kwargs)
        self.activation_post_process.is_sync_quantize = observer_kwargs.get("is_sync_quantize", True)

    def refresh_scale(self) -> None:
        """Bring ``scale`` up to date with what was learned, in place."""
        raise NotImplementedError

    def takes_range(self, before: Tensor, after: Tensor) -> Tensor:
        """Return where the range gives the start value; in calibration, wherever it moved."""
        moved = super().takes_range(before, after)
        return moved & torch.isinf(before) if self.fake_quant_enabled else moved

    def __getattr__(self, name: str) -> Any:
        if name == "scale":
            self.refresh_scale()
        return super().__getattr__(name)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        self.refresh_scale()
        super()._save_to_state_dict(destination, prefix, keep_vars)


class LearnableFakeQuantize(_Learned):
    """LSQ: the scale is a parameter (S. K. Esser et al., "Learned step size quantization", ICLR 2020).

    The start value is the scale of the observed range instead of the paper's ``2 * mean(|x|) / sqrt(quant_max)``, so
    that training continues from the calibrated model.

    Args:
        observer: as in ``FakeQuantize``, like the arguments up to ``channel_len``.
        saturate: whether the gradient of x is 0 outside the range. That of the scale is the paper's in any case.
        in_place: see there.
        compat_mask: without meaning here; the backward pass keeps x and q.
        channel_len: see there.
        use_grad_scaling: multiply the gradient of the scale by ``1 / sqrt(N * quant_max)``, N the number of elements
            that share one scale (section 2.2 of the paper).
        observer_kwargs: arguments of the observer.
    """

    def __init__(
        self,
        observer: Callable[..., Observer] = MovingAverageMinMaxObserver,
        saturate: bool | None = None,
        in_place: bool = False,
        compat_mask: bool = True,
        channel_len: int = 1,
        use_grad_scaling: bool = False,
        **observer_kwargs: Any,
    ) -> None:
        super().__init__(observer, saturate, in_place, compat_mask, channel_len, **observer_kwargs)
        self.use_grad_scaling = use_grad_scaling

    def register_scale(self, scale: Tensor) -> None:
        """Register ``scale`` as parameter; as buffer if it is fixed."""
        if self.fixed:
            self.register_buffer("scale", scale)
        else:
            self.register_parameter("scale", nn.Parameter(scale))

    def refresh_scale(self) -> None:
        """Keep the parameter positive. Through .data, which leaves values saved for a backward pass valid."""
        parameter = self._parameters.get("scale")
        if parameter is not None:
            parameter.data.clamp_(min=SMALLEST_SCALE)

    def straight_through(self, x: Tensor, q: Tensor) -> Tensor:
        """Return exactly ``q * scale``, with the gradients of x and of the scale."""
        if self.fixed:
            return super().straight_through(x, q)
        scale = self._along(x, self.scale)
        if not torch.is_grad_enabled():
            return dequantize(q, scale, x.dtype)
        sharing = x.numel() / scale.numel()
        factor = (sharing * self.quant_max) ** -0.5 if self.use_grad_scaling else 1.0
        return learned_step(x, q, scale, *self._range(scale), factor, self.saturate is False)


class PACTFakeQuantize(_Learned):
    """PACT: the clipping value alpha is a parameter (J. Choi et al., 2018), in the symmetric form for signed data.

    ``scale`` always equals ``scale_from_range(-alpha, alpha)``. The paper adds an L2 penalty on alpha: give this
    parameter a weight decay in the optimizer.

    A checkpoint has the key ``alpha`` besides those of ``FakeQuantize``. Without it, as in one of a calibrated model,
    alpha is taken from ``scale``; and the other variants load one with it.

    Arguments as in ``FakeQuantize``; ``compat_mask`` is without meaning here, since the backward pass keeps x.
    """

    channel_tensors = ("scale", "zero_point", "alpha")

    alpha: Tensor
    """Largest |x| before clipping, float32, shape of the scale."""

    def register_scale(self, scale: Tensor) -> None:
        """Register ``scale`` and the clipping value that it comes from."""
        alpha = amplitude_from_scale(scale, self.quant_min, self.quant_max)
        self.register_buffer("scale", scale)
        if self.fixed:
            self.register_buffer("alpha", alpha)
        else:
            self.register_parameter("alpha", nn.Parameter(alpha))

    def refresh_scale(self) -> None:
        """Keep alpha positive and compute the scale from it."""
        alpha, scale = self._parameters.get("alpha"), self._buffers.get("scale")
        if alpha is not None and scale is not None:
            smallest = SMALLEST_SCALE * (self.quant_max - self.quant_min)
            alpha.data.clamp_(min=smallest)
            scale.data.copy_(self._scale_of(alpha.data))

    def follow_range(self, where: Tensor, amplitude: Tensor) -> None:
        """Take the amplitude as clipping value, where told."""
        self.alpha.data.copy_(torch.where(where, amplitude, self.alpha.data))

    def store_scale(self, scale: Tensor) -> None:
        """Overwrite the clipping value, in place, by that of a scale."""
        self.alpha.data.copy_(amplitude_from_scale(scale, self.quant_min, self.quant_max))
        super().store_scale(scale)

    def straight_through(self, x: Tensor, q: Tensor) -> Tensor:
        """Return exactly ``q * scale``, with the gradients of x and of alpha."""
        if self.fixed:
            return super().straight_through(x, q)
        scale = self._along(x, self.scale)
        if not torch.is_grad_enabled():
            return dequantize(q, scale, x.dtype)
        return learned_clip(x, q, scale, *self._range(scale), self._along(x, self.alpha), self.saturate is False)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(prefix + "scale")
        if isinstance(saved, Tensor) and prefix + "alpha" not in state_dict:
            state_dict[prefix + "alpha"] = amplitude_from_scale(saved, self.quant_min, self.quant_max)
        super()._load_from_state_dict(state_dict, prefix, *args)

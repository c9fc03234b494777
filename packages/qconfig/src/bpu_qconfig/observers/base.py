"""Observer: the statistics of one tensor over many batches, and what all kinds of observers share."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from bpu_kernels.dtypes import QuantDType, quant_dtype
from bpu_kernels.errors import BpuKernelsError

from ..errors import InvalidQConfigError, ObservationError
from ..partial import WithArgs
from ..scale import amplitude_from_scale, scale_from_range
from ..state_tensors import StateTensors
from .reduce import reduce_max

__all__ = ["Observer"]

_PER_CHANNEL = {torch.per_tensor_symmetric: False, torch.per_channel_symmetric: True}


class Observer(WithArgs, StateTensors):
    """Watches the batches of one tensor and keeps a moving average of their range.

    Of each batch the smallest and largest value are taken, a subclass may narrow them (``narrow``), and the result
    is merged into ``min_val`` and ``max_val`` (``merge``). Observing needs no gradient and changes no input. Inputs are
    floating tensors of any dtype and memory format.

    Inside, a range is one float32 tensor of its two *ends*, ``-min`` and ``max``, shape [2] or [2, channels]: both grow
    outward, so one rule serves both.

    A batch with NaN or infinity, or without elements, leaves the statistics as they were and raises an error. On a GPU
    that costs a host synchronisation, so there it is raised only while ``strict`` is set, which ``set_fake_quantize``
    does for calibration.

    Args:
        averaging_constant: c of ``v <- v + c * (batch - v)``, 0 to 1. The first batch is taken as it is. 0 therefore
            keeps what is there, and 1 always takes the latest batch. It may be assigned later.
        ch_axis: axis of the channels, where ``qscheme`` is per channel; it means nothing otherwise.
        dtype: quantized type: ``"qint8"``, ``torch.qint8``, ``bpu_kernels.dtypes.qint8``, or 16 instead of 8.
        qscheme: ``torch.per_tensor_symmetric`` or ``torch.per_channel_symmetric``.
        quant_min: smallest integer, by default that of ``dtype``.
        quant_max: largest integer, by default that of ``dtype``.
        is_sync_quantize: reduce the statistics of every batch over all ranks of ``torch.distributed``, once that is
            initialised, so that all ranks hold the same ones. Every rank must then observe equally often.
        factory_kwargs: ``{"device": ...}`` of the statistics, whose dtype is always float32.
    """

    fixed: ClassVar[bool] = False
    """Whether the scale was given instead of observed."""

    channel_tensors: ClassVar[tuple[str, ...]] = ("min_val", "max_val")

    min_val: Tensor
    """Smallest value, float32, shape [] or [channels]; infinity before the first batch."""
    max_val: Tensor
    """Largest value, like ``min_val``; minus infinity before the first batch."""

    def __init__(
        self,
        averaging_constant: float = 0.01,
        ch_axis: int = -1,
        dtype: object = "qint8",
        qscheme: torch.qscheme = torch.per_tensor_symmetric,
        quant_min: int | None = None,
        quant_max: int | None = None,
        is_sync_quantize: bool = False,
        factory_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not 0.0 <= averaging_constant <= 1.0:
            raise InvalidQConfigError(f"expected an averaging_constant of 0 to 1, got {averaging_constant!r}")
        if qscheme not in _PER_CHANNEL:
            raise InvalidQConfigError(
                f"expected qscheme torch.per_tensor_symmetric or torch.per_channel_symmetric, got {qscheme}; "
                "the BPU has no zero points"
            )
        self.averaging_constant = averaging_constant
        self.dtype = _checked_dtype(dtype)
        self.qscheme = qscheme
        self.is_per_channel = _PER_CHANNEL[qscheme]
        self.ch_axis = ch_axis if self.is_per_channel else -1
        self.quant_min, self.quant_max = _limits(self.dtype, quant_min, quant_max)
        self.is_sync_quantize = is_sync_quantize
        self.strict = False
        """Raise on bad batches also where that synchronises the host with a GPU; elsewhere it is always done."""
        self.path = "<unnamed>"
        """Path of this observer in the model, for error messages."""
        self.batches = 0
        """Number of batches seen, bad ones included."""

        device = _device(factory_kwargs)
        shape = (1,) if self.is_per_channel else ()
        self.register_buffer("min_val", torch.full(shape, torch.inf, dtype=torch.float32, device=device))
        self.register_buffer("max_val", torch.full(shape, -torch.inf, dtype=torch.float32, device=device))

    @property
    def observed(self) -> bool:
        """Whether any range is known: from a batch, a checkpoint or a given scale. Reads the device."""
        return bool(torch.isfinite(self.min_val).all())

    def forward(self, x: Tensor) -> Tensor:
        """Take one batch into the statistics, and return it as it came.

        Raises:
            ObservationError: the batch is empty, or holds NaN or infinity (on a GPU only if ``strict``).
            InvalidQConfigError: the batch has another number of channels than those before.
        """
        if not x.is_floating_point():
            raise ObservationError(f"{self.path}: expected a floating tensor, got {x.dtype}")
        with torch.no_grad():
            self._observe(x.detach())
        return x

    def skips_batch(self) -> bool:
        """Whether the current batch is to be checked only, and not taken into the statistics; here never."""
        return False

    def narrow(self, x: Tensor, ends: Tensor) -> Tensor:
        """Return the ends to use for a batch whose own are given; here all of it."""
        return ends

    def merge(self, old: Tensor, new: Tensor) -> Tensor:
        """Return the ends of the statistics moved towards those of a batch, here by the moving average.

        Before the first batch ``old`` is minus infinity.
        """
        constant = self.averaging_constant
        if constant == 1.0:  # old + (new - old) can miss new by a rounding
            return new
        return torch.where(torch.isinf(old), new, old + constant * (new - old))

    def amplitude(self) -> Tensor:
        """Return the largest |x| of the range, float32, [] or [channels]; minus infinity before the first batch."""
        return torch.maximum(-self.min_val, self.max_val)

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Return scale (float32) and zero point (int64, always 0), each of shape [1] or [channels].

        The scale is 1 where nothing has been observed.
        """
        scale = scale_from_range(
            self.min_val, self.max_val, self.dtype, quant_min=self.quant_min, quant_max=self.quant_max
        )
        scale = torch.where(torch.isinf(self.min_val), torch.ones_like(scale), scale).reshape(-1)
        return scale, torch.zeros_like(scale, dtype=torch.int64)

    def set_scale(self, scale: Tensor) -> None:
        """Take the symmetric range of a given scale ([1] or [channels]) as the state to continue from."""
        amplitude = amplitude_from_scale(scale, self.quant_min, self.quant_max)
        if self.is_per_channel:
            self.fit_channels(scale.numel())
        self.min_val.copy_(-amplitude.reshape(self.min_val.shape))
        self.max_val.copy_(amplitude.reshape(self.max_val.shape))

    def rows(self, x: Tensor) -> Tensor:
        """Return the batch as [channels, elements of each]; one row if per tensor."""
        if not self.is_per_channel:
            return x.reshape(1, -1)
        return x.movedim(self.ch_axis, 0).reshape(x.shape[self.ch_axis], -1)

    def extra_repr(self) -> str:
        """Show the range in force."""
        return f"min_val={self.min_val}, max_val={self.max_val}"

    def _observe(self, x: Tensor) -> None:
        self.batches += 1
        if self.is_per_channel and x.shape[self.ch_axis]:
            self.fit_channels(x.shape[self.ch_axis])
        ends = self._ends(x)
        good = torch.isfinite(ends).all()
        # Whether a batch is empty is known on the host; whether it is finite, the device must be asked.
        if x.numel() == 0 or ((x.device.type == "cpu" or self.strict) and not good):
            raise ObservationError(self._complaint(x))
        if self.skips_batch():
            return
        old = torch.stack([-self.min_val, self.max_val])
        new = torch.where(good, self.merge(old, self.narrow(x, ends)), old)
        self.min_val.copy_(-new[0])
        self.max_val.copy_(new[1])

    def _ends(self, x: Tensor) -> Tensor:
        """Return the ends of a batch, over all ranks; not finite if any of its values is not, or if it is empty."""
        if x.numel() == 0:
            ends = torch.stack([self.min_val, self.max_val]).fill_(torch.nan)
        elif self.is_per_channel:
            rows = self.rows(x)
            ends = torch.stack([-rows.amin(1), rows.amax(1)]).to(torch.float32)
        else:
            low, high = torch.aminmax(x)
            ends = torch.stack([-low, high]).to(torch.float32)
        if not self.is_sync_quantize:
            return ends
        # The maximum of NaN is undefined, that of infinity is not; so a bad batch of one rank is one on all of them.
        return reduce_max(ends.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=torch.inf))

    def _complaint(self, x: Tensor) -> str:
        where = f"{self.path}: batch {self.batches}"
        if x.numel() == 0:
            return f"{where} is empty (shape {list(x.shape)}); its statistics are unchanged, leave such batches out"
        bad = x.numel() - int(torch.isfinite(x.to(torch.float32)).sum())
        if not bad:
            return f"{where} holds NaN or infinity, or nothing, on another rank; the statistics are unchanged"
        return (
            f"{where} holds NaN or infinity ({bad} of {x.numel()} values); the statistics are unchanged, "
            "look for the cause in the data or in the layers before"
        )


def _checked_dtype(dtype: object) -> QuantDType:
    try:
        return quant_dtype(dtype)
    except BpuKernelsError as error:
        raise InvalidQConfigError(f"dtype: {error}") from None


def _limits(dtype: QuantDType, quant_min: int | None, quant_max: int | None) -> tuple[int, int]:
    low = dtype.min if quant_min is None else quant_min
    high = dtype.max if quant_max is None else quant_max
    if not dtype.min <= low < 0 < high <= dtype.max:
        raise InvalidQConfigError(
            f"expected {dtype.min} <= quant_min < 0 < quant_max <= {dtype.max} for {dtype}, got {low} and {high}"
        )
    return low, high


def _device(factory_kwargs: dict[str, Any] | None) -> torch.device | None:
    options = dict(factory_kwargs or {})
    options.pop("dtype", None)  # torch passes one; statistics are float32 all the same
    device = options.pop("device", None)
    if options:
        raise InvalidQConfigError(f"expected factory_kwargs with 'device' and 'dtype', got also {sorted(options)}")
    return device if device is None else torch.device(device)

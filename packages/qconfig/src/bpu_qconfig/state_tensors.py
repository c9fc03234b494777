"""Tensors that hold the state of quantization: float32 whatever the model's dtype, and tolerant of old checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from .errors import InvalidQConfigError

__all__ = ["StateTensors"]


class StateTensors(nn.Module):
    """Base of observers and fake quantizers.

    - ``half()``, ``bfloat16()``, ``double()`` and ``to(dtype)`` move its tensors but leave their dtype: a rounded scale
      would be another scale than the one calibrated.
    - A value of one element loads whether it was saved with shape [] or [1]. Other shapes are refused by name.
    - Tensors per channel have a fixed length. Only one that was made with length 1 takes the length of the first tensor
      or checkpoint that it meets.
    """

    channel_tensors: ClassVar[tuple[str, ...]] = ()
    """Names of the buffers and parameters that hold one value per channel."""

    is_per_channel: bool

    def __init__(self) -> None:
        super().__init__()
        self.is_per_channel = False

    def fit_channels(self, channels: int) -> None:
        """Make room for so many channels, or check that there is.

        Raises:
            InvalidQConfigError: the tensors have another length already.
        """
        for name in self._own_channel_tensors():
            own: Tensor = getattr(self, name)
            if own.numel() == 1 and own.numel() != channels:
                # Through .data a parameter stays the object that an optimizer knows.
                own.data = own.data.expand(channels).clone()
            elif own.numel() != channels:
                raise InvalidQConfigError(
                    f"{type(self).__name__}.{name} holds {own.numel()} channels, but {channels} came; "
                    "give the number of channels as channel_len, and check ch_axis"
                )

    def _own_channel_tensors(self) -> tuple[str, ...]:
        own = {**self._buffers, **self._parameters}
        return tuple(name for name in self.channel_tensors if own.get(name) is not None)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def keeping_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        super()._apply(keeping_dtype, recurse)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        error_msgs: list[str] = args[-1]
        for name in self._own_channel_tensors():
            key, own = prefix + name, getattr(self, name).data
            saved = state_dict.get(key)
            if not isinstance(saved, Tensor) or saved.shape == own.shape:
                continue
            if saved.numel() == own.numel() == 1:
                state_dict[key] = saved.reshape(own.shape)
            elif self.is_per_channel and own.numel() == 1 and saved.dim() == 1:
                getattr(self, name).data = own.expand(saved.numel()).clone()
            else:
                expected = f"{list(own.shape)}" + (" (or [], [1])" if own.numel() == 1 else "")
                error_msgs.append(
                    f"{key}: expected shape {expected}, the checkpoint has {list(saved.shape)}; "
                    f"make the module with channel_len={saved.numel()}, or load the checkpoint it belongs to"
                )
                state_dict[key] = own  # loads as it is, so that torch adds no second message
        super()._load_from_state_dict(state_dict, prefix, *args)

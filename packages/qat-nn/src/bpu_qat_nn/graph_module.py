"""The graph modules of the stages: observed (calibration, QAT) and quantized (integers)."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bpu_fx_fusion import GraphModuleWithAttr
from bpu_kernels.march import March

from .capture.captured_tensor import capturing, in_capture_scope
from .capture.plain import captured_call
from .errors import ArgumentError
from .one_call.integer_part import forward_in_parts
from .preparation.report import PrepareReport

__all__ = ["LIVING", "ObservedGraphModule", "QuantizedGraphModule", "expect_full_precision"]

_HALF = (torch.float16, torch.bfloat16)


def expect_full_precision(tensor: Tensor, what: str) -> None:
    """Raise ArgumentError if a tensor is in half precision."""
    if tensor.dtype in _HALF:
        raise ArgumentError(
            f"{what} in {tensor.dtype}: half precision holds neither the scales nor the sums of integers; keep the "
            "model in float32, and train under torch.autocast if memory is short (quantized layers leave it)"
        )


LIVING: weakref.WeakValueDictionary[int, nn.Module] = weakref.WeakValueDictionary()
"""The graph modules of both stages by ``id``, which is what dynamo can tell of one."""


_Made = TypeVar("_Made", bound="_GraphModule")


class _GraphModule(GraphModuleWithAttr):
    """A graph module that refuses ``half()`` and the like, instead of giving other integers."""

    def __new__(cls: type[_Made], *args: Any, **kwargs: Any) -> _Made:
        """Create, as torch.fx does, and note that it exists."""
        made = super().__new__(cls, *args, **kwargs)
        LIVING[id(made)] = made
        return made

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        expect_full_precision(fn(torch.zeros(1)), f"{type(self).__name__} cannot be")
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]


class ObservedGraphModule(_GraphModule):
    """A model under calibration or quantization-aware training, made by ``prepare_qat_fx``."""

    march: March
    """The march it was prepared for."""
    prepare_report: PrepareReport
    """What was quantized, and what stayed in float and why."""

    def _call_impl(self, *args: Any, **kwargs: Any) -> Any:
        """Compute; what ``torch.compile`` sees is one operator."""
        if torch.compiler.is_dynamo_compiling():
            from .capture.compiled import observed_call

            return observed_call(self, args, kwargs)
        return super()._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]


class QuantizedGraphModule(_GraphModule):
    """A model on integers, made by ``convert_fx``: an ordinary graph module, to be edited by scripts as wanted."""

    march: March
    """The march it was converted for."""

    def _call_impl(self, *args: Any, **kwargs: Any) -> Any:
        """Compute; while torch captures the model, as calls of operators that it can follow."""
        if torch.compiler.is_dynamo_compiling():
            from .capture.compiled import compiled_call

            return compiled_call(self, args, kwargs)
        if capturing() and not in_capture_scope():
            return captured_call(self, args, kwargs)
        hooked = self._forward_hooks or self._forward_pre_hooks
        in_parts = None if hooked or capturing() else forward_in_parts(self, args, kwargs)
        if in_parts is not None:
            return in_parts()
        return super()._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]

    def train(self, mode: bool = True) -> Any:
        """Stay in evaluation: integers do not train."""
        return super().train(False)

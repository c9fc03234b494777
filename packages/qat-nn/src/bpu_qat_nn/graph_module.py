"""The graph modules of the stages: observed (calibration, QAT) and quantized (integers)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bpu_fx_fusion import GraphModuleWithAttr
from bpu_kernels.march import March

from .capture import in_capture_scope
from .errors import ArgumentError
from .plain import captured_call
from .report import PrepareReport

__all__ = ["ObservedGraphModule", "QuantizedGraphModule", "expect_full_precision"]

_HALF = (torch.float16, torch.bfloat16)


def expect_full_precision(tensor: Tensor, what: str) -> None:
    """Raise ArgumentError if a tensor is in half precision."""
    if tensor.dtype in _HALF:
        raise ArgumentError(
            f"{what} in {tensor.dtype}: half precision holds neither the scales nor the sums of integers; keep the "
            "model in float32, and train under torch.autocast if memory is short (quantized layers leave it)"
        )


class _FullPrecision(GraphModuleWithAttr):
    """A graph module that refuses ``half()`` and the like, instead of giving other integers."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        expect_full_precision(fn(torch.zeros(1)), f"{type(self).__name__} cannot be")
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]


class ObservedGraphModule(_FullPrecision):
    """A model under calibration or quantization-aware training, made by ``prepare_qat_fx``."""

    march: March
    """The march it was prepared for."""
    prepare_report: PrepareReport
    """What was quantized, and what stayed in float and why."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute; what ``torch.compile`` sees is one call that it leaves alone."""
        if torch.compiler.is_dynamo_compiling():
            from .compiled import uncompiled_call

            return uncompiled_call(self, args, kwargs)
        return super().__call__(*args, **kwargs)


class QuantizedGraphModule(_FullPrecision):
    """A model on integers, made by ``convert_fx``: an ordinary graph module, to be edited by scripts as wanted."""

    march: March
    """The march it was converted for."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute; while torch traces or compiles, as calls of ``torch.ops.bpu`` that it can follow."""
        if in_capture_scope():
            return super().__call__(*args, **kwargs)
        if torch.compiler.is_dynamo_compiling():
            from .compiled import compiled_call

            return compiled_call(self, args, kwargs)
        if torch._C._get_tracing_state() is not None:
            return captured_call(self, args, kwargs)
        return super().__call__(*args, **kwargs)

    def train(self, mode: bool = True) -> Any:
        """Stay in evaluation: integers do not train."""
        return super().train(False)

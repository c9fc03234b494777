"""The graph modules of the stages: observed (calibration, QAT) and quantized (integers)."""

from __future__ import annotations

from typing import Any

from bpu_fx_fusion import GraphModuleWithAttr
from bpu_kernels.march import March

__all__ = ["ObservedGraphModule", "PrepareReport", "QuantizedGraphModule"]


class PrepareReport(tuple[str, ...]):
    """What stayed in float and why, a line each."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(self) or "everything between the QuantStubs and DeQuantStubs is quantized"


class ObservedGraphModule(GraphModuleWithAttr):
    """A model under calibration or quantization-aware training, made by ``prepare_qat_fx``."""

    march: March
    """The march it was prepared for."""
    prepare_report: PrepareReport
    """What stayed in float, and why."""


class QuantizedGraphModule(GraphModuleWithAttr):
    """A model on integers, made by ``convert_fx``: an ordinary graph module, to be edited by scripts as wanted."""

    march: March
    """The march it was converted for."""

    def train(self, mode: bool = True) -> Any:
        """Stay in evaluation: integers do not train."""
        return super().train(False)

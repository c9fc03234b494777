"""Padding feature maps with a constant or with copies of the edge; the scale stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from bpu_fx_fusion import Pad as FloatPad
from bpu_kernels.dtypes import QuantDType
from bpu_kernels.march import MarchRow
from bpu_kernels.ops.layout import Pad

from ..op import Operator, OpRow, Output, type_problems
from ..qat_module import QATModule
from ..qtensor import QTensor
from ..quantized_module import QuantizedModule

__all__ = ["ROWS"]

_MODES = {"constant": "constant", "replicate": "edge"}
"""Mode of torch -> mode of the kernel."""


class PadOperator(Operator):
    """``F.pad``: two numbers per axis, last axis first."""

    own_scale: ClassVar[bool] = False
    widths: tuple[int, ...]
    mode: str
    value: float

    def configure(self, source: Any) -> None:
        """Read mode and widths off the float module."""
        if isinstance(source, Operator):
            self.widths, self.mode, self.value = source.widths, source.mode, source.value  # type: ignore[attr-defined]
            return
        widths = getattr(source, "padding", None) if not isinstance(source, FloatPad) else source.pad
        self.widths = tuple(widths) if widths is not None else ()
        self.mode = "replicate" if isinstance(source, nn.ReplicationPad2d) else getattr(source, "mode", "constant")
        self.value = float(getattr(source, "value", 0.0) or 0.0)

    def real(self, *inputs: Tensor) -> Tensor:
        """Pad."""
        return F.pad(inputs[0], self.widths, self.mode, self.value if self.mode == "constant" else None)

    def steps(self, out: Output, *inputs: QTensor) -> QTensor:
        """Pad with the nearest step."""
        x = inputs[0]
        axes = len(x.shape)
        before, after = [0] * axes, [0] * axes
        for index in range(len(self.widths) // 2):
            before[axes - 1 - index], after[axes - 1 - index] = self.widths[2 * index : 2 * index + 2]
        step = 0
        if self.value:
            nearest = self.derived.get([x.scale], lambda: round(self.value / float(x.scale)), "pad", self.value)
            step = min(max(nearest, x.dtype.min), x.dtype.max)
        kernel = Pad(before=tuple(before), after=tuple(after), value=step, mode=_MODES[self.mode])
        return x.invoke(kernel, self.row, x, scale=out.scale, dtype=out.dtype)

    def extra_repr(self) -> str:
        """Widths and mode."""
        return f"{self.widths}, mode={self.mode!r}, value={self.value}"


class QuantizedPad(PadOperator, QuantizedModule):
    """Padding of integers."""


class QATPad(PadOperator, QATModule):
    """Padding under quantization-aware training."""

    quantized = QuantizedPad

    @classmethod
    def limits(
        cls, module: Any, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """Constant or replicated edge; widths known in advance and not negative."""
        mode = getattr(module, "mode", "constant")
        allowed = _MODES if row.moves_freely else ("constant",)
        found = [] if mode in allowed else [f"mode {mode!r} (allowed: {', '.join(map(repr, allowed))})"]
        widths = module.pad if isinstance(module, FloatPad) else module.padding
        if widths is None:
            found.append("widths computed at run time; give them as numbers")
        elif min(widths) < 0:
            found.append(f"negative widths {widths}")
        return found + type_problems(inputs, row.activations)


ROWS = (
    OpRow(
        name="Pad",
        floats=(FloatPad, nn.ZeroPad2d, nn.ConstantPad2d, nn.ReplicationPad2d),
        qat=QATPad,
        kernels=("pad",),
        note="A constant is rounded to the nearest step.",
    ),
)

"""Padding feature maps with a constant or with copies of the edge; the scale stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
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

_MODULES: dict[type[nn.Module], str] = {nn.ReplicationPad2d: "replicate", nn.ReflectionPad2d: "reflect"}
"""Module -> mode, where it has no attribute that says so."""

_MIRRORING = ("reflect", "circular")
"""Modes of torch that copy elements from inside."""


def _positions(length: int, before: int, after: int, mode: str) -> list[int]:
    """Return which elements of an axis padding copies, by torch's rules."""
    positions = range(-before, length + after)
    if mode == "circular":
        return [position % length for position in positions]
    return [abs(position) if position < length else 2 * (length - 1) - position for position in positions]


def _mode_of(module: nn.Module) -> str:
    """Return the mode of F.pad that a float module stands for."""
    return _MODULES.get(type(module), getattr(module, "mode", "constant"))


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
        self.mode = _mode_of(source)
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
        x = self._cropped(x, before, after)
        before, after = ([max(0, width) for width in each] for each in (before, after))
        if self.mode in _MIRRORING:
            return self._mirrored(x, before, after)
        if not any((*before, *after)):
            return x
        step = 0
        if self.value:
            low, high = x.dtype.min, x.dtype.max  # the value may be infinite, as before a maximum
            step = self.derived.get([x], lambda: round(min(max(self.value / float(x.scale), low), high)), "pad")
        kernel = Pad(before=tuple(before), after=tuple(after), value=step, mode=_MODES[self.mode])
        return x.invoke(kernel, self.row, x, scale=out.scale, dtype=out.dtype)

    def _cropped(self, x: Any, before: list[int], after: list[int]) -> QTensor:
        """Take away what negative widths say."""
        for axis, (first, last) in enumerate(zip(before, after, strict=True)):
            if first < 0 or last < 0:
                x = x.narrow(axis, max(0, -first), int(x.shape[axis]) + min(0, first) + min(0, last))
        cropped: QTensor = x
        return cropped

    def _mirrored(self, x: Any, before: list[int], after: list[int]) -> QTensor:
        for axis, (first, last) in enumerate(zip(before, after, strict=True)):
            if first or last:
                position = torch.tensor(_positions(int(x.shape[axis]), first, last, self.mode), device=x.scale.device)
                x = x.index_select(axis, position)
        mirrored: QTensor = x
        return mirrored

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
        """Constant, replicated edge or copies from inside; widths known in advance."""
        mode = _mode_of(module)
        allowed = (*_MODES, *_MIRRORING) if row.moves_freely else ("constant",)
        found = [] if mode in allowed else [f"mode {mode!r} (allowed: {', '.join(map(repr, allowed))})"]
        widths = module.pad if isinstance(module, FloatPad) else module.padding
        if widths is None:
            found.append("widths computed at run time; give them as numbers")
        return found + type_problems(inputs, row.activations)


ROWS = (
    OpRow(
        name="Pad",
        floats=(FloatPad, nn.ZeroPad2d, nn.ConstantPad2d, nn.ReplicationPad2d, nn.ReflectionPad2d),
        qat=QATPad,
        kernels=("pad", "slice", "concat"),
        note="A constant is rounded to the nearest step. Reflecting and circular padding join slices.",
    ),
)

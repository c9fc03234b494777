"""Where real values become integers and integers real values again: QuantStub and DeQuantStub."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bpu_fx_fusion import register_leaf_module
from bpu_kernels.dtypes import QuantDType, qint8
from bpu_kernels.march import MarchRow
from bpu_kernels.torch_ops.library import quantize
from bpu_qconfig import FakeQuantize, FixedScaleObserver, QConfig

from ..capture.captured_tensor import CapturedTensor, capturing
from ..derived import Derived
from ..errors import ArgumentError, CaptureError, InputError
from ..op import Operator, OpRow, Output
from ..qat_module import QATModule
from ..qtensor import QTensor
from ..quantized_module import QuantizedModule

__all__ = ["ROWS", "DeQuantStub", "QuantStub"]


@register_leaf_module
class QuantStub(nn.Module):
    """Marks where real values become quantized; in a float model it does nothing.

    Args:
        scale: fixed scale, positive; 1/128 for a pyramid input that shall mean [-1, 1). None: taken from statistics.
            A stub inside a model, at the border of two segments, needs None.
        zero_point: 0 or None; the BPU quantizes symmetrically.
        qconfig: of this stub alone.
    """

    def __init__(
        self, scale: float | None = None, zero_point: int | None = None, qconfig: QConfig | None = None
    ) -> None:
        super().__init__()
        if scale is not None and not 0 < float(scale) < math.inf:
            raise ArgumentError(f"expected a positive scale or None, got {scale!r}")
        if zero_point:
            raise ArgumentError(f"expected zero_point 0 or None, got {zero_point!r}: the BPU quantizes symmetrically")
        self.scale = None if scale is None else float(scale)
        self.zero_point = zero_point
        if qconfig is not None:
            self.qconfig = qconfig

    def forward(self, x: Tensor) -> Tensor:
        """Return x."""
        return x

    def extra_repr(self) -> str:
        """The fixed scale, if any."""
        return "" if self.scale is None else f"scale={self.scale}"


@register_leaf_module
class DeQuantStub(nn.Module):
    """Marks where quantized values become real again; in a float model it does nothing."""

    def __init__(self, qconfig: QConfig | None = None) -> None:
        super().__init__()
        if qconfig is not None:
            self.qconfig = qconfig

    def forward(self, x: Tensor) -> Tensor:
        """Return x."""
        return x


def _expect_tensor(x: Any, path: str) -> None:
    if not isinstance(x, Tensor):
        raise InputError(
            f"{path} (QuantStub) expected a tensor, got {type(x).__name__}; several inputs of a model are a tuple"
        )


class QuantizedQuantStub(QuantizedModule):
    """Rounds numbers, as float32, to the nearest step, ties to even; passes on a tensor that is quantized already.

    Buffer: ``scale`` (float32, [1]); scripts may overwrite it, e.g. ``model.quant.scale.fill_(1.0)``.
    """

    @classmethod
    def of(cls, scale: Tensor, dtype: QuantDType, path: str = "") -> QuantizedQuantStub:
        """Return a stub of a given scale, for graphs that are edited after conversion."""
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        made.dtype, made.path, made.derived = dtype, path, Derived()
        made.register_buffer("scale", scale.detach().clone().reshape(-1))
        return made.eval()

    def forward(self, *inputs: Any) -> Any:
        """Quantize."""
        x = inputs[0]
        if hasattr(x, "invoke"):  # quantized already
            return x
        if hasattr(x, "quantize_input"):  # what lowering passes through the model
            return x.quantize_input(self.scale, self.dtype)
        if capturing() and not torch.compiler.is_dynamo_compiling():
            return CapturedTensor.quantized(x, self.scale, self.dtype, str(self.row.march))
        if torch.compiler.is_compiling():
            raise CaptureError(
                "torch.compile, torch.export with strict=True and torch before 2.7 follow no such model; torch.export "
                "takes it with strict=False, and any torch takes plain_module(quantized, *inputs)"
            )
        _expect_tensor(x, self.path)
        return QTensor(quantize(x, self.scale, self.dtype), self.scale, None, self.dtype)

    def _get_name(self) -> str:
        return "Quantize"


class QATQuantStub(QATModule):
    """Fake quantization of an input; a tensor that is quantized already passes through and leaves its scale here."""

    quantized = QuantizedQuantStub
    activation_post_process: FakeQuantize

    def __init__(self, source: nn.Module, qconfig: QConfig, row: MarchRow, path: str = "") -> None:
        scale = getattr(source, "scale", None)
        if scale is not None:
            dtype = qint8 if qconfig.activation is None else qconfig.activation().dtype
            fixed = FakeQuantize.with_args(observer=FixedScaleObserver, scale=scale, dtype=dtype)
            qconfig = QConfig(activation=fixed, weight=qconfig.weight)
        if qconfig.activation is None:
            raise ArgumentError(f"{path}: the qconfig of a QuantStub needs an activation part")
        super().__init__(source, qconfig, row, path)

    def forward(self, *inputs: Any) -> QTensor:
        """Observe and round."""
        x = inputs[0]
        if isinstance(x, QTensor):
            self.activation_post_process.set_qparams(x.scale.detach())
            return x
        _expect_tensor(x, self.path)
        return self.quantize_output(x.to(torch.float32))

    @classmethod
    def limits(
        cls, module: Any, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """Types of the march; a tensor that passes through keeps its type and its scale."""
        found = []
        if dtype not in row.activations:
            found.append(f"type {dtype} (allowed: {', '.join(map(str, row.activations))})")
        if any(x is not None and x is not dtype for x in inputs):
            found.append(f"type {dtype} where {inputs[0]} passes through (give the stub a qconfig of that type)")
        if inputs and getattr(module, "scale", None) is not None:
            found.append(f"scale {module.scale} of its own where a quantized tensor passes through (allowed: None)")
        return found


class QuantizedDeQuantStub(Operator, nn.Module):
    """Multiplies integers by their scale."""

    def __init__(self, source: nn.Module) -> None:
        nn.Module.__init__(self)
        self.eval()

    def forward(self, x: Any) -> Any:
        """Dequantize; real tensors pass through."""
        return x.dequantize() if hasattr(x, "per_channel_axis") else x

    def _get_name(self) -> str:
        return "DeQuantize"


class QATDeQuantStub(QATModule):
    """Turns a QTensor into an ordinary one."""

    own_scale: ClassVar[bool] = False
    quantized: ClassVar[type[QuantizedModule]] = QuantizedDeQuantStub  # type: ignore[assignment]

    def forward(self, *inputs: Any) -> Any:
        """Dequantize; real tensors pass through."""
        x = inputs[0]
        return x.dequantize() if isinstance(x, QTensor) else x

    def steps(self, out: Output, *inputs: QTensor) -> QTensor:
        """Nothing happens on integers."""
        return inputs[0]


ROWS = (
    OpRow(name="QuantStub", floats=(QuantStub,), qat=QATQuantStub, kernels=()),
    OpRow(name="DeQuantStub", floats=(DeQuantStub,), qat=QATDeQuantStub, kernels=()),
)

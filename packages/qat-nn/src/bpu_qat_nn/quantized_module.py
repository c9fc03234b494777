"""QuantizedModule: an operator in a converted model, from integers to integers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from bpu_kernels.dtypes import QuantDType, qint8

from .capture.own_tensors import note_tensors, own_tensor
from .derived import Derived
from .op import Operator, Output
from .qtensor import QTensor

if TYPE_CHECKING:
    from .qat_module import QATModule

__all__ = ["QuantizedModule"]


class QuantizedModule(Operator, nn.Module):
    """An operator on integers.

    Buffers: ``scale`` (float32, [1]) of the output where the operator has one of its own.
    """

    dtype_without_scale: ClassVar[QuantDType] = qint8
    """Type of an output that has no scale of its own."""
    scale: Tensor
    dtype: QuantDType

    def __init__(self, source: QATModule) -> None:
        nn.Module.__init__(self)
        self.row, self.path, self.derived = source.row, source.path, Derived()
        fake_quant = source.activation_post_process
        self.dtype = self.dtype_without_scale if fake_quant is None else fake_quant.dtype
        if fake_quant is not None:
            self.register_buffer("scale", fake_quant.scale.detach().clone().reshape(-1))
        self.eval()
        self.configure(source)

    def forward(self, *inputs: QTensor) -> QTensor:
        """Compute the output's integers from the inputs'."""
        self.expect_axes(inputs)
        first = inputs[0]
        out = Output(self.scale, self.dtype) if self.own_scale else Output(first.scale, first.dtype)
        return self.steps(out, *inputs)

    def named_modules(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """List the modules inside; see capture/own_tensors.py."""
        note_tensors(self)
        yield from super().named_modules(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Return a parameter, a buffer or a module of this one; see capture/own_tensors.py."""
        found = super().__getattr__(name)
        return own_tensor(self, name, found) if isinstance(found, Tensor) else found

    def extra_repr(self) -> str:
        """Scale and type of the output."""
        return f"scale={self.scale.tolist()}, dtype={self.dtype}" if "scale" in self._buffers else ""

    def _get_name(self) -> str:
        return type(self).__name__.removeprefix("Quantized")

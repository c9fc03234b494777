"""Operators made of other operators: softmax, layer normalization, attention.

The hardware's own arithmetic for them is not known, so they are computed in operators whose arithmetic is. Every part
is an ordinary operator with a scale of its own, observed and trained like any other; so the composite is exact because
its parts are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from bpu_kernels.dtypes import QuantDType, qint16
from bpu_kernels.march import MarchRow
from bpu_qconfig import QConfig, default_weight_8bit_fake_quant

from ...derived import Derived
from ...op import Operator, Output, type_problems
from ...qat_module import QATModule
from ...qtensor import QTensor
from ...quantized_module import QuantizedModule

__all__ = ["CompositeOperator", "Part", "QATComposite", "QuantizedComposite"]

Part = tuple[type[QATModule], nn.Module, QuantDType | None]
"""QAT class, the float module that it is made of, and the type of its output; None for what the qconfig says."""


class CompositeOperator(Operator):
    """What QAT and converted form share: how the parts are called."""

    def combine(self, *inputs: Any, **options: Any) -> Any:
        """Compute with the parts, which are children of the same names."""
        raise NotImplementedError


class QuantizedComposite(CompositeOperator, QuantizedModule):
    """A composite of integers."""

    def __init__(self, source: QATModule) -> None:
        nn.Module.__init__(self)
        self.row, self.path, self.derived = source.row, source.path, Derived()
        self.eval()
        self.configure(source)
        for name, part in source.named_children():
            if isinstance(part, QATModule):
                self.add_module(name, part.to_quantized())

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Compute the output's integers from the inputs'."""
        self.expect_axes([x for x in inputs if x is not None])
        return self.combine(*inputs, **options)


class QATComposite(CompositeOperator, QATModule):
    """A composite under quantization-aware training."""

    def __init__(self, source: nn.Module, qconfig: QConfig, row: MarchRow, path: str = "") -> None:
        nn.Module.__init__(self)
        self.row, self.path, self.derived = row, path, Derived(keeps=False)
        if qconfig.weight is None:
            qconfig = replace(qconfig, weight=default_weight_8bit_fake_quant)
        self.qconfig, self.activation_post_process = qconfig, None
        self.train(source.training)
        self.configure(source)
        for name, (qat, part, dtype) in self.parts(source).items():
            given = qconfig if dtype is None else with_output(qconfig, dtype)
            self.add_module(name, qat(part.train(source.training), given, row, f"{path}.{name}"))

    def parts(self, source: nn.Module) -> Mapping[str, Part]:
        """Return the parts by name."""
        raise NotImplementedError

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Compute with the parts; real values in CALIBRATION."""
        self.expect_quantized(tuple(x for x in inputs if x is not None))
        return self.combine(*inputs, **options)

    def real(self, *inputs: Any) -> Tensor:
        """Composites have no meaning of their own; the parts have."""
        raise NotImplementedError

    def steps(self, out: Output, *inputs: QTensor) -> QTensor:
        """Composites have no meaning of their own; the parts have."""
        raise NotImplementedError

    @classmethod
    def limits(
        cls, module: nn.Module, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """The parts between input and output are of 16 bits."""
        found = type_problems(inputs, row.activations)
        if qint16 not in row.activations:
            found.append("what is computed in 16 bits between its input and output")
        return found


def with_output(qconfig: QConfig, dtype: QuantDType) -> QConfig:
    """Return a qconfig whose activations have another type."""
    activation: Any = qconfig.activation
    return replace(qconfig, activation=activation.with_args(dtype=str(dtype)))

"""Gated and piecewise functions made of known operators: GLU, PReLU, and the LSTM's cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, ClassVar

from torch import nn

from bpu_fx_fusion import Clamp, FloatFunctional
from bpu_kernels.dtypes import QuantDType
from bpu_kernels.march import MarchRow

from ...errors import InputError
from ...op import OpRow, type_problems
from ...qtensor import QTensor
from ..clip import QATClip
from ..functional import QATFloatFunctional
from ..table import QATTable
from ..weighted.conv import QATConv2d
from ..weighted.linear import QATLinear
from .composite import CompositeOperator, Part, QATComposite, QuantizedComposite
from .copied import copied, copied_linear

__all__ = ["ROWS", "QATLSTMCell"]


class GLUOperator(CompositeOperator):
    """``a * sigmoid(b)`` of the two halves of an axis."""

    config: ClassVar[tuple[str, ...]] = ("dim",)
    dim: int

    def combine(self, *inputs: Any, **options: Any) -> QTensor:
        """Gate the first half by the second."""
        part: Any = self
        value, gate = inputs[0].chunk(2, self.dim)
        result: QTensor = part.product.mul(value, part.sigmoid(gate))
        return result


class QuantizedGLU(GLUOperator, QuantizedComposite):
    """GLU of integers."""


class QATGLU(GLUOperator, QATComposite):
    """GLU under quantization-aware training."""

    quantized = QuantizedGLU

    def parts(self, source: nn.Module) -> Mapping[str, Part]:
        """A table and a product."""
        return {
            "sigmoid": (QATTable, nn.Sigmoid(), None),
            "product": (QATFloatFunctional, FloatFunctional(), None),
        }

    @classmethod
    def limits(
        cls, module: nn.Module, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """Types of the march."""
        return type_problems([dtype, *inputs], row.activations)


class PReLUOperator(CompositeOperator):
    """``max(x, 0) + slope * min(x, 0)``, with one slope or one per channel."""

    config: ClassVar[tuple[str, ...]] = ("num_parameters",)
    fixed: ClassVar[tuple[str, ...]] = config
    num_parameters: int

    def combine(self, *inputs: Any, **options: Any) -> QTensor:
        """Scale what is negative, as a depthwise convolution; add what is positive."""
        part: Any = self
        x = inputs[0]
        below = part.negative(x)
        batch, channels = x.shape[0], self.num_parameters
        if channels > 1 and len(x.shape) == 4:
            scaled = part.slope(below)
        else:
            pixels = prod(int(n) for n in x.shape[1:]) // channels
            scaled = part.slope(below.reshape([batch, channels, pixels, 1])).reshape(x.shape)
        result: QTensor = part.sum.add(part.positive(x), scaled)
        return result


class QuantizedPReLU(PReLUOperator, QuantizedComposite):
    """PReLU of integers."""


class QATPReLU(PReLUOperator, QATComposite):
    """PReLU under quantization-aware training."""

    quantized = QuantizedPReLU

    def parts(self, source: Any) -> Mapping[str, Part]:
        """Two clips, a convolution with the slopes, a sum."""
        count = source.num_parameters
        slope = nn.Conv2d(count, count, 1, groups=count, bias=False, device="meta")
        slope.weight = copied(source.weight, (-1, 1, 1, 1))
        return {
            "positive": (QATClip, nn.ReLU(), None),
            "negative": (QATClip, Clamp(max=0.0), None),
            "slope": (QATConv2d, slope, None),
            "sum": (QATFloatFunctional, FloatFunctional(), None),
        }

    @classmethod
    def limits(
        cls, module: Any, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """Types of the march; one slope for all channels needs the channels regrouped."""
        found = type_problems([dtype, *inputs], row.activations)
        if module.num_parameters == 1 and not row.moves_freely:
            found.append("one slope for all channels (give num_parameters)")
        return found


class LSTMCellOperator(CompositeOperator):
    """``i, f, g, o = linear(x) + linear(h);  c' = sigmoid(f) c + sigmoid(i) tanh(g);  h' = sigmoid(o) tanh(c')``."""

    def combine(self, *inputs: Any, **options: Any) -> tuple[QTensor, QTensor]:
        """Take a step."""
        given = (*inputs, *(state for state in (options.get("hx"),) if state is not None))
        if len(given) != 2:
            raise InputError(f"{self.label} expected an input and the states (h, c); give the first states as well")
        part: Any = self
        x, (hidden, cell) = given
        return self.advance(part.input(x), hidden, cell)

    def advance(self, projected: Any, hidden: Any, cell: Any) -> tuple[QTensor, QTensor]:
        """Take a step with an input that went through its linear layer."""
        part: Any = self
        gates = part.gates.add(projected, part.hidden(hidden))
        i, f, g, o = gates.chunk(4, 1)
        kept = part.keep.mul(part.forget(f), cell)
        state = part.state.add(kept, part.take.mul(part.admit(i), part.candidate(g)))
        return part.give.mul(part.emit(o), part.squash(state)), state


class QuantizedLSTMCell(LSTMCellOperator, QuantizedComposite):
    """LSTM cell of integers."""

    def expect_axes(self, inputs: Sequence[Any]) -> None:
        """The parts look at their inputs."""


class QATLSTMCell(LSTMCellOperator, QATComposite):
    """LSTM cell under quantization-aware training."""

    quantized = QuantizedLSTMCell
    options: ClassVar[frozenset[str]] = frozenset({"hx"})

    def expect_quantized(self, inputs: tuple[Any, ...]) -> None:
        """The input and both states."""
        super().expect_quantized(tuple(each for x in inputs for each in (x if isinstance(x, tuple) else (x,))))

    def parts(self, source: Any) -> Mapping[str, Part]:
        """Two linear layers, five tables, five products and sums."""
        layers = {
            "input": copied_linear(source.weight_ih, source.bias_ih),
            "hidden": copied_linear(source.weight_hh, source.bias_hh),
        }
        tables: dict[str, nn.Module] = {name: nn.Sigmoid() for name in ("forget", "admit", "emit")}
        tables |= {name: nn.Tanh() for name in ("candidate", "squash")}
        functionals = ("gates", "keep", "take", "state", "give")
        return {
            **{name: (QATLinear, layer, None) for name, layer in layers.items()},
            **{name: (QATTable, table, None) for name, table in tables.items()},
            **{name: (QATFloatFunctional, FloatFunctional(), None) for name in functionals},
        }


ROWS = (
    OpRow(name="GLU", floats=(nn.GLU,), qat=QATGLU, kernels=("slice", "lut8", "lut16", "mul", "rescale")),
    OpRow(
        name="PReLU",
        floats=(nn.PReLU,),
        qat=QATPReLU,
        kernels=("relu", "lut8", "lut16", "conv2d", "add", "add_scaled"),
        note="In three operators; the slopes are weights of a depthwise convolution.",
    ),
    OpRow(
        name="LSTMCell",
        floats=(nn.LSTMCell,),
        qat=QATLSTMCell,
        kernels=("linear", "conv2d", "slice", "lut8", "lut16", "add", "mul", "rescale"),
        note="Computed in known operators. The states come in as a pair.",
    ),
)

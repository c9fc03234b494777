"""nn.LSTM as its cells, step by step in time; the sequence has the length of the example inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

from bpu_fx_fusion import FloatFunctional
from bpu_kernels.dtypes import QuantDType
from bpu_kernels.march import MarchRow

from ...op import OpRow
from ...qtensor import QTensor
from ..dropout import QATDropout
from ..functional import QATFloatFunctional
from .composite import CompositeOperator, Part, QATComposite, QuantizedComposite
from .copied import copied
from .gates import QATLSTMCell
from .joined import Joined, QATJoin

__all__ = ["ROWS"]


class LSTMOperator(CompositeOperator):
    """Layers, each of one direction or two; (N, L, features) with batch_first, else (L, N, features)."""

    config: ClassVar[tuple[str, ...]] = ("num_layers", "bidirectional", "batch_first", "drops")
    fixed: ClassVar[tuple[str, ...]] = config
    num_layers: int
    bidirectional: bool
    batch_first: bool
    drops: bool

    def combine(self, *inputs: Any, **options: Any) -> tuple[QTensor, tuple[QTensor, QTensor]]:
        """Run every layer over the sequence."""
        part: Any = self
        x, hx = inputs[0], inputs[1] if len(inputs) > 1 else options.get("hx")
        last: list[tuple[Any, Any]] = []
        for layer in range(self.num_layers):
            along = []
            for name in directions(layer, self.bidirectional):
                state = None if hx is None else tuple(each.select(0, len(last)) for each in hx)
                outputs, final = self._sequence(name, x, state)
                along.append(outputs)
                last.append(final)
            x = along[0] if len(along) == 1 else getattr(self, f"both_{layer}").cat(along, dim=2)
            if self.drops and layer < self.num_layers - 1:
                x = part.dropout(x)
        hidden, cell = ([each.unsqueeze(0) for each in kind] for kind in zip(*last, strict=True))
        if len(last) == 1:
            return x, (hidden[0], cell[0])
        return x, (part.hidden_states.cat(hidden, dim=0), part.cell_states.cat(cell, dim=0))

    def _sequence(self, name: str, x: Any, state: Any) -> tuple[QTensor, tuple[QTensor, QTensor]]:
        """Return what one direction gives for every step, and its last states."""
        part: Any = self
        cell, time = getattr(self, name), 1 if self.batch_first else 0
        projected = cell.input(x)
        steps = range(int(x.shape[time]))
        if state is None:
            zero = part.zero.mul_scalar(projected.select(time, 0).chunk(4, 1)[0], 0.0)
            state = (zero, zero)
        outputs = []
        for step in reversed(steps) if name.endswith("reverse") else steps:
            state = cell.advance(projected.select(time, step), *state)
            outputs.append(state[0].unsqueeze(time))
        ordered = outputs[::-1] if name.endswith("reverse") else outputs
        return part.join(*ordered), state

    def extra_repr(self) -> str:
        """Layers and directions."""
        return f"num_layers={self.num_layers}, bidirectional={self.bidirectional}, batch_first={self.batch_first}"


def directions(layer: int, bidirectional: bool) -> list[str]:
    """Return the names of a layer's cells; torch's parameters end alike."""
    return [f"l{layer}", f"l{layer}_reverse"][: 2 if bidirectional else 1]


class QuantizedLSTM(LSTMOperator, QuantizedComposite):
    """LSTM of integers."""

    def expect_axes(self, inputs: Sequence[Any]) -> None:
        """The parts look at their inputs."""


class QATLSTM(LSTMOperator, QATComposite):
    """LSTM under quantization-aware training."""

    quantized = QuantizedLSTM
    options: ClassVar[frozenset[str]] = frozenset({"hx"})

    def configure(self, source: Any) -> None:
        """Note layers and directions."""
        self.num_layers, self.bidirectional = source.num_layers, source.bidirectional
        self.batch_first, self.drops = source.batch_first, source.dropout > 0

    def expect_quantized(self, inputs: tuple[Any, ...]) -> None:
        """The input and, if given, both states."""
        super().expect_quantized(tuple(each for x in inputs for each in (x if isinstance(x, tuple) else (x,))))

    def parts(self, source: Any) -> Mapping[str, Part]:
        """A cell for each layer and direction, and what joins their results."""
        layers = range(source.num_layers)
        cells = [name for layer in layers for name in directions(layer, source.bidirectional)]
        functionals = [f"both_{layer}" for layer in layers if source.bidirectional]
        functionals += ["hidden_states", "cell_states"] if len(cells) > 1 else []
        dropout = {"dropout": (QATDropout, nn.Dropout(source.dropout), None)} if self.drops else {}
        return {
            **{name: (QATLSTMCell, _cell(source, name), None) for name in cells},
            **{name: (QATFloatFunctional, FloatFunctional(), None) for name in (*functionals, "zero")},
            "join": (QATJoin, Joined(1 if source.batch_first else 0), None),
            **dropout,
        }

    @classmethod
    def limits(
        cls, module: Any, row: MarchRow, dtype: QuantDType, inputs: Sequence[QuantDType | None] = ()
    ) -> list[str]:
        """Those of the cell; no projection."""
        found = super().limits(module, row, dtype, inputs)
        return [*found, f"proj_size {module.proj_size} (allowed: 0)"] if module.proj_size else found


def _cell(source: Any, name: str) -> nn.Module:
    """Return the cell of a layer and direction, with copies of its weights."""
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh") if source.bias else ("weight_ih", "weight_hh")
    given = {kind: getattr(source, f"{kind}_{name}") for kind in kinds}
    cell = nn.LSTMCell(given["weight_ih"].shape[1], source.hidden_size, source.bias, device="meta")
    for kind, parameter in given.items():
        setattr(cell, kind, copied(parameter, parameter.shape))
    return cell


ROWS = (
    OpRow(
        name="LSTM",
        floats=(nn.LSTM,),
        qat=QATLSTM,
        kernels=("linear", "conv2d", "slice", "lut8", "lut16", "add", "mul", "rescale", "concat", "reshape"),
        note="Its cells step by step: all steps share scales, and a Program is for sequences of one length.",
    ),
)

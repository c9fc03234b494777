"""Build a Program node by node; shapes and types are inferred at once, so an error names the node that causes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .check import infer
from .dtypes import quant_dtype
from .errors import BpuKernelsError, InvalidProgramError
from .fields import map_arrays, stored_array
from .kernel import Kernel, TensorSpec
from .march import March
from .program import Program
from .program_graph import Node, ProgramInput, ProgramOutput

__all__ = ["ProgramBuilder", "Value"]


@dataclass(frozen=True)
class Value:
    """A tensor of a Program that is being built."""

    name: str
    spec: TensorSpec
    scale: tuple[float, ...]


class ProgramBuilder:
    """Collects inputs, nodes and outputs; ``build`` checks the whole.

    >>> from bpu_kernels.ops.elementwise import Relu
    >>> builder = ProgramBuilder("bayes")
    >>> x = builder.input("x", (1, 8, 8, 3), "qint8", scale=0.5)
    >>> y = builder.add(Relu(), x, name="relu")
    >>> builder.output(y, "y")
    >>> [str(spec) for spec in builder.build().specs.values()]
    ['qint8[1x8x8x3]', 'qint8[1x8x8x3]']
    """

    def __init__(self, march: March | str) -> None:
        self.march = March(march)
        self._inputs: list[ProgramInput] = []
        self._nodes: list[Node] = []
        self._outputs: list[ProgramOutput] = []
        self._values: dict[str, Value] = {}

    def input(
        self,
        name: str,
        shape: Sequence[int],
        dtype: object,
        scale: float | Sequence[float],
        source: str = "ddr",
    ) -> Value:
        """Declare an input and return its value.

        Args:
            name: unique among inputs and nodes.
            shape: NHWC for feature maps.
            dtype: qint8 or qint16, in any form that ``quant_dtype`` knows.
            scale: real value of one step; one, or one per channel.
            source: "ddr", "pyramid" or "resizer".
        """
        if name in self._values:
            raise InvalidProgramError(f"the name {name!r} is taken; an input needs a name of its own")
        spec = TensorSpec(tuple(map(int, shape)), quant_dtype(dtype))
        value = Value(name, spec, _scales(scale))
        self._inputs.append(ProgramInput(name=name, spec=spec, scale=value.scale, source=source))
        return self._keep(value)

    def add(self, kernel: Kernel, *values: Value, name: str, scale: float | Sequence[float] | None = None) -> Value:
        """Append a node and return its output.

        Args:
            kernel: the operator; its arrays are copied into the types that Programs store.
            values: what it reads, from this builder.
            name: path of the module it comes from; a number is appended if it is taken.
            scale: of the output; may be left out where the operator keeps the scale of its first input.

        Raises:
            InvalidProgramError: the operator cannot take these values; the message starts with the node's name.
        """
        unique = self._unique(name)
        for value in values:
            if self._values.get(value.name) is not value:
                raise InvalidProgramError(f"{unique}: the value {value.name!r} belongs to another builder")
        try:
            stored: Kernel = map_arrays(kernel, stored_array)
            spec = infer(stored, *(value.spec for value in values))
        except BpuKernelsError as error:
            raise InvalidProgramError(f"{unique}: {error}") from error
        if scale is None and not kernel.keeps_scale:
            raise InvalidProgramError(f"{unique}: {kernel.name} sets the scale of its output; give scale=")
        result = Value(unique, spec, values[0].scale if scale is None else _scales(scale))
        inputs = tuple(value.name for value in values)
        self._nodes.append(Node(name=unique, kernel=stored, inputs=inputs, output=unique, scale=result.scale))
        return self._keep(result)

    def output(self, value: Value, name: str) -> None:
        """Hand a value out under a name."""
        self._outputs.append(ProgramOutput(name=name, tensor=value.name))

    def build(self, metadata: Mapping[str, str] | None = None) -> Program:
        """Return the Program.

        Raises:
            InvalidProgramError: it is not well formed.
            UnsupportedError: the march cannot run it; the message lists every node and reason.
        """
        return Program(
            march=self.march,
            inputs=tuple(self._inputs),
            nodes=tuple(self._nodes),
            outputs=tuple(self._outputs),
            metadata=dict(metadata or {}),
        )

    def _keep(self, value: Value) -> Value:
        self._values[value.name] = value
        return value

    def _unique(self, name: str) -> str:
        candidate, number = name, 0
        while candidate in self._values:
            number += 1
            candidate = f"{name}_{number}"
        return candidate


def _scales(scale: float | Sequence[float]) -> tuple[float, ...]:
    return tuple(map(float, scale)) if isinstance(scale, Sequence) else (float(scale),)

"""Recorder: collects what a converted model computes, and makes the Program of what its outputs need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bpu_kernels import InvalidProgramError, Program, ProgramBuilder, Value
from bpu_kernels.dtypes import QuantDType, qint32
from bpu_kernels.kernel import Kernel, TensorSpec
from bpu_kernels.march import MarchRow
from bpu_kernels.ops.constant import Constant
from bpu_kernels.ops.layout import Reshape, Transpose
from bpu_kernels.torch_ops import tensors_to_numpy

from ..errors import LoweringError

__all__ = ["Recorded", "Recorder"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Recorded:
    """A tensor of the Program to be: an input, or what an operator gives."""

    name: str
    """Of the input, or path of the module or node that computed it."""
    spec: TensorSpec
    scale: Tensor
    kernel: Kernel | None = None
    """None: it is an input."""
    inputs: tuple[Recorded, ...] = ()
    source: str = "ddr"
    """Of an input: "ddr", "pyramid" or "resizer"."""


@dataclass
class Recorder:
    """Collects tensors in the order in which they come to be; ``path`` is the module or node that is running."""

    row: MarchRow
    sources: dict[str, str] = field(default_factory=dict)
    """Input name -> "ddr", "pyramid" or "resizer"."""
    path: str = ""
    places: dict[str, Any] = field(default_factory=dict)
    """What stands for the result of every place that has run, by path; from its second call on with ``(1)`` behind."""
    _recorded: list[Recorded] = field(default_factory=list)
    _moved: dict[tuple[object, ...], Recorded] = field(default_factory=dict)

    @property
    def input_names(self) -> set[str]:
        """Names of the inputs declared so far."""
        return {each.name for each in self._recorded if each.kernel is None}

    @property
    def has_batch_of_one(self) -> bool:
        """Whether every input declared so far has a batch of one, so that no tensor has several images."""
        return all(each.spec.shape[0] == 1 for each in self._recorded if each.kernel is None)

    def note(self, path: str, result: Any) -> str:
        """Keep what stands for the result of a place; return its label in ``places``."""
        number = 0
        while (label := f"{path}({number})" if number else path) in self.places:
            number += 1
        self.places[label] = result
        return label

    def input(self, name: str, spec: TensorSpec, scale: Tensor) -> Recorded:
        """Declare an input."""
        if name in self.input_names:
            raise LoweringError(f"two inputs would be called {name!r}; rename an argument, or a key in one")
        return self._keep(Recorded(name=name, spec=spec, scale=scale, source=self.sources.get(name, "ddr")))

    def add(self, kernel: Kernel, *values: Recorded, scale: Tensor) -> Recorded:
        """Append an operator; what it computes of constants alone is a constant itself."""
        stored = tensors_to_numpy(kernel)
        try:
            spec = stored.infer(*(value.spec for value in values))
        except InvalidProgramError as error:
            raise LoweringError(str(error)) from error
        if values and spec.dtype is not qint32 and all(isinstance(value.kernel, Constant) for value in values):
            integers = stored.run(self.row, *(value.kernel.run(self.row) for value in values if value.kernel))
            return self.constant(torch.from_numpy(integers), spec.dtype, scale)
        return self._keep(Recorded(name=self.path, spec=spec, scale=scale, kernel=stored, inputs=values))

    def constant(self, values: Tensor, dtype: QuantDType, scale: Tensor) -> Recorded:
        """Append a constant; ``values`` are its integers as they are stored."""
        kernel = Constant(values=values.to(torch.int16).reshape(-1), shape=tuple(values.shape), dtype=dtype)
        return self.add(kernel, scale=scale)

    def reshape(self, value: Recorded, shape: tuple[int, ...]) -> Recorded:
        """Append a Reshape, unless memory has that shape already; of several in a row only the last is left."""
        source = value.inputs[0] if isinstance(value.kernel, Reshape) else value
        return source if source.spec.shape == shape else self._once(Reshape(shape=shape), source, shape)

    def transpose(self, value: Recorded, axes: tuple[int, ...]) -> Recorded:
        """Append a Transpose, once for the same value."""
        return self._once(Transpose(axes=axes), value, axes)

    def _once(self, kernel: Kernel, value: Recorded, key: object) -> Recorded:
        found = (type(kernel), id(value), key)
        if found not in self._moved:
            self._moved[found] = self.add(kernel, value, scale=value.scale)
        return self._moved[found]

    def _keep(self, recorded: Recorded) -> Recorded:
        self._recorded.append(recorded)
        return recorded

    def program(self, outputs: Mapping[str, Recorded], metadata: Mapping[str, str]) -> Program:
        """Return the Program of all inputs and of what the outputs need; unused work is left out.

        Args:
            outputs: name -> tensor.
            metadata: free text to keep.

        Raises:
            UnsupportedError: the march cannot run it; the message lists every node and reason.
        """
        builder = ProgramBuilder(self.row.march)
        values: dict[int, Value] = {}
        needed = self._needed(outputs)
        taken = {name: id(tensor) for name, tensor in outputs.items()}
        for each in self._recorded:
            scale = each.scale.tolist()
            if each.kernel is None:
                values[id(each)] = builder.input(each.name, each.spec.shape, each.spec.dtype, scale, each.source)
            elif id(each) in needed:
                inputs = (values[id(source)] for source in each.inputs)
                name = each.name if taken.get(each.name, id(each)) == id(each) else f"{each.name}_"
                values[id(each)] = builder.add(each.kernel, *inputs, name=name, scale=scale)
        for name, tensor in outputs.items():
            builder.output(values[id(tensor)], name)
        return builder.build(metadata)

    def _needed(self, outputs: Mapping[str, Recorded]) -> set[int]:
        needed = {id(tensor) for tensor in outputs.values()}
        for each in reversed(self._recorded):
            if id(each) in needed:
                needed.update(id(source) for source in each.inputs)
        return needed

"""Plan: the calls of the vendor's HBIR builder that make a model, as data for the worker process."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bpu_kernels import TensorSpec
from bpu_kernels.dtypes import QuantDType
from bpu_kernels.fixed_point import Multiplier
from bpu_kernels.march import MarchRow

__all__ = ["Inputs", "Plan", "Ref", "Specs", "axis_of", "first_of", "four", "second_of", "tuple_of", "type_of"]

Ref = dict[str, Any]
"""A builder argument that JSON has no form for: a tensor, an array, a tuple, a type."""

_UNSAFE = re.compile(r"[^A-Za-z0-9_]")
"""What names of HBIR do without."""


Inputs = list[Ref]
"""Of a layer."""
Specs = list[TensorSpec]
"""Of its inputs."""


def four(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape that HBIR gives a tensor of a Program: fewer than four axes get axes of 1 behind the batch."""
    return tuple(shape) if len(shape) >= 4 else (shape[0], *(1,) * (4 - len(shape)), *shape[1:])


def tuple_of(values: Sequence[int]) -> Ref:
    """Return a tuple argument."""
    return {"tuple": [int(value) for value in values]}


def axis_of(axis: int, rank: int) -> int:
    """Return where an axis of a tensor of so many lies among HBIR's four."""
    return axis if axis == 0 else axis + max(4 - rank, 0)


def second_of(made: Ref) -> Ref:
    """Return the second tensor of a call that gives two."""
    return {"tensor": f"{made['tensor']}.1"}


def first_of(second: Ref) -> Ref:
    """Return the first tensor of the call that gave this second one."""
    return {"tensor": second["tensor"].removesuffix(".1") + ".0"}


def type_of(dtype: QuantDType) -> Ref:
    """Return an element type argument."""
    return {"type": f"int{dtype.bits}"}


@dataclass
class Plan:
    """Calls to make, arrays that they use, and names of inputs and outputs."""

    row: MarchRow
    calls: list[dict[str, Any]] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    layers: dict[str, str] = field(default_factory=dict)
    """Name of a layer in HBIR -> name of the node that it stands for."""
    node: str = ""
    """The node or input whose calls are being made."""

    def array(self, values: Any) -> Ref:
        """Store an array and return the argument that stands for it."""
        key = f"a{len(self.arrays)}"
        self.arrays[key] = np.ascontiguousarray(values)
        return {"array": key}

    def per_channel(self, values: Any, channels: int) -> Ref:
        """Store a parameter, spread over the channels."""
        return self.array(np.broadcast_to(np.ravel(values), (channels,)))

    def call(self, module: str, function: str, *args: Any, **kwargs: Any) -> Ref:
        """Append a call and return the argument that stands for its tensor."""
        result = f"t{len(self.calls)}"
        called = {"module": module, "function": function, "args": args, "kwargs": kwargs}
        self.calls.append({**called, "result": result, "node": self.node})
        return {"tensor": result}

    def helper(self, function: str, *args: Any, **kwargs: Any) -> Ref:
        """Append a call of hbir_helper for the current node."""
        return self.call("helper", function, *args, name=self.layer(), **kwargs)

    def concat(self, inputs: Inputs, axis: int, dtype: QuantDType) -> Ref:
        """Append the call that joins tensors along one of HBIR's axes."""
        layer = self.layer()
        return self.call("base", "CreateConcatLayer", inputs, layer, axis, type_of(dtype), f"{layer}_output")

    def layer(self) -> str:
        """Return a layer name for the current node, unique and of letters, digits and underscores."""
        name = f"n{len(self.calls)}_{_UNSAFE.sub('_', self.node)}"
        self.layers[name] = self.node
        return name

    def input_name(self, name: str) -> str:
        """Return an input's name as HBIR takes it; the own one where it is safe, so that users find it again."""
        return f"n{len(self.calls)}_{_UNSAFE.sub('_', name)}" if _UNSAFE.search(name) else name

    def multiplier(self, by: Multiplier, channels: int) -> dict[str, Ref]:
        """Return the three arguments of a multiplier."""
        return {name: self.per_channel(value, channels) for name, value in vars(by).items()}

    def with_paths(self, text: str) -> str:
        """Return a message of the tools with the names of nodes in place of layers."""
        for layer in sorted(self.layers, key=len, reverse=True):
            text = text.replace(layer, self.layers[layer])
        return text
